"""A real vLLM, followed from its first log line to ready, and to its end when it cannot start."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from deckard_deploy.errors import StartFailedError
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.startup.follow import Ready, follow
from deckard_deploy.startup.observation import State
from deckard_deploy.startup.phases import Phase, Progress
from deckard_deploy.startup.readiness import Outcome, probe
from tests.support.ports import free_port

pytestmark = pytest.mark.vllm
NAME, LAUNCH = "tiny-gemma4", "launch-e2e"


@dataclass(frozen=True)
class FakeObservation:
    state: State
    exit_code: int | None
    oom_killed: bool = False
    restart_count: int = 0
    instance_id: str | None = "the only one"
    gateway: State | None = None
    gateway_exit_code: int | None = None


class Server:
    """vLLM as a child; a thread moves its output into a queue."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.decode(errors="replace"))

    def poll_lines(self) -> list[str]:
        return [self._lines.get() for _ in range(self._lines.qsize())]

    def observe(self) -> FakeObservation:
        code = self.process.poll()
        return FakeObservation("running" if code is None else "exited", code)

    def tail_gateway(self, _: int) -> list[str]:
        return []

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self._reader.join()


class FirstCompletion(threading.Thread):
    """Asks for a completion all the time; `at` is when the first one had been answered."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url, self.at, self.over = base_url, float("nan"), threading.Event()

    def run(self) -> None:
        question = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        while not self.over.wait(0.02):
            try:
                if requests.post(f"{self.base_url}/chat/completions", json=question, timeout=60).ok:
                    self.at = time.monotonic()
                    return
            except requests.RequestException:
                continue


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma4.write(tmp_path_factory.mktemp("weights") / NAME)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CACHE_ROOT": str(tmp_path_factory.mktemp("cache")),
    }


@contextmanager
def served(
    python: Path, weights: Path, port: int, environment: dict[str, str], *more: str
) -> Iterator[Server]:
    command = [str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(weights), "--port", str(port)]
    names = ["--host", "127.0.0.1", "--served-model-name", NAME, LAUNCH]
    server = Server([*command, *names, "--enforce-eager", "--max-model-len", "1024", *more], environment)
    try:
        yield server
    finally:
        server.stop()


def follow_to_end(server: Server, base_url: str, shown: list[Progress]) -> Ready:
    return follow(
        server,
        lambda: probe(base_url, launch_id=LAUNCH, served_name=NAME),
        stalled_after_s=300,
        on_progress=shown.append,
    )


def test_start_is_followed_to_ready(
    engine_python: Path,
    weights: Path,
    environment: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    port = free_port()
    base_url = f"http://127.0.0.1:{port}/v1"
    shown: list[Progress] = []
    with served(engine_python, weights, port, environment) as server:
        first = FirstCompletion(base_url)
        first.start()
        try:
            ready = follow_to_end(server, base_url, shown)
            noticed_at = time.monotonic()
            first.join(60)
        finally:
            first.over.set()
            first.join()
        record_property("noticed_after_s", round(noticed_at - first.at, 3))
        print(
            f"ready after {ready.elapsed_s:.1f} s, {noticed_at - first.at:+.3f} s after the first completion"
        )
        assert [each.phase for each in shown][-1] is Phase.SERVER
        assert set(ready.durations) == {
            Phase.CONTAINER,
            Phase.IMPORTS,
            Phase.WEIGHTS,
            Phase.KV_CACHE,
            Phase.WARM_UP,
            Phase.SERVER,
        }
        assert ready.facts.kv_cache_tokens is not None
        assert ready.facts.max_concurrency is not None
        assert probe(base_url, launch_id="another-launch", served_name=NAME).outcome is Outcome.OTHER_SERVER


def test_failure_is_diagnosed(engine_python: Path, weights: Path, environment: dict[str, str]) -> None:
    port = free_port()
    with (
        served(engine_python, weights, port, environment, "--no-such-flag") as server,
        pytest.raises(StartFailedError, match="unrecognized arguments: --no-such-flag") as failed,
    ):
        follow_to_end(server, f"http://127.0.0.1:{port}/v1", [])
    assert "serve in deckard.yaml" in failed.value.hint
