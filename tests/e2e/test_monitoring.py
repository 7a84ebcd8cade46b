"""`top` on a terminal and Prometheus itself, both reading a real vLLM that works."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deckard_deploy.catalog.metric_names import metric_names, names_in_query
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.operations.bench_target import requests_in_flight
from deckard_deploy.operations.deployments import DeploymentRef
from deckard_deploy.operations.monitoring import gateway_credentials
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.monitoring import MonitoringSettings, render_monitoring
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process.supervision import server_tag
from deckard_deploy.system.processes import processes_with_variable
from tests.e2e.conftest import Tool
from tests.e2e.prometheus import ask
from tests.e2e.terminal import Terminal
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.vllm
NAME = "watched"


class Load(threading.Thread):
    """Six requests at a time, more than the four that the server runs at once, until told to stop."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url, self._over = base_url, threading.Event()

    def stop(self) -> None:
        """Wait for the last answers."""
        self._over.set()
        self.join()

    def run(self) -> None:
        askers = [threading.Thread(target=self._ask, args=(number,)) for number in range(6)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

    def _ask(self, number: int) -> None:
        body = {
            "model": "tiny-gemma4",
            "messages": [{"role": "user", "content": f"Hello {number}?"}],
            "max_tokens": 24,
        }
        while not self._over.is_set():
            requests.post(
                f"{self.base_url}/chat/completions", json={**body, "ignore_eos": True}, timeout=120
            ).raise_for_status()


@pytest.fixture(scope="module")
def base_url(tool: Tool) -> Iterator[str]:
    up = tool("up", "--profile", "cpu", "--name", NAME, "--port", str(free_port()))
    yield up.stdout.strip()
    tool("down", "--name", NAME, check=False)


@pytest.fixture(scope="module")
def load(base_url: str) -> Iterator[Load]:
    working = Load(base_url)
    working.start()
    yield working
    working.stop()


@pytest.fixture
def top(home: Path) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "deckard_deploy", "top", "--name", NAME, "--interval", "0.5"]
    terminal = Terminal(command, {**os.environ, "DECKARD_HOME": str(home)})
    yield terminal
    terminal.close()


def working(text: str) -> bool:
    """Return True if the screen shows a server that generates."""
    return "4 running" in text and "tok/s" in text and " ms" in text


@pytest.mark.usefixtures("load")
def test_top_fits_and_restores_terminal(top: Terminal) -> None:
    text = top.until(working)
    assert text.startswith("tiny-gemma4 on cpu, vllm-0.19.1-cpu")
    for words in (
        "generation",
        "waiting",
        "KV cache",
        "preemptions",
        "first token",
        "p99",
        "restarts",
        "q leaves",
    ):
        assert words in text
    top.resize(60, 21)
    assert "q leaves" in top.until(lambda text: working(text) and "q leaves" in text)
    top.resize(120, 40)
    top.until(working)
    top.press("q")
    assert top.end() == 0
    assert top.attributes == top.before


@pytest.mark.usefixtures("load")
def test_interrupt_ends_top_cleanly(top: Terminal) -> None:
    top.until(working)
    top.press("\x03")
    assert top.end() == 0
    assert top.attributes == top.before


@pytest.mark.usefixtures("load")
def test_top_prints_json_once(tool: Tool) -> None:
    found = json.loads(tool("top", "--name", NAME, "--once", "--json").stdout)
    assert found["generation_tok_s"] > 0
    assert 0 < found["kv_use"] < 1
    assert found["between_tokens"]["p50_s"] > 0
    assert (found["restarts"], found["acceptance_rate"]) == (0, None)
    # Between an answer and its client's next question fewer than four run: one look of ten must meet all of them.
    looks = (json.loads(tool("top", "--name", NAME, "--once", "--json").stdout)["running"] for _ in range(10))
    assert 4 in looks
    lines = (tool("top", "--name", NAME, "--once").stdout for _ in range(10))
    assert any("tok/s  running 4  waiting " in line for line in lines)


def plan_of(home: Path) -> LaunchPlan:
    release = (home / "deployments" / NAME / "current").resolve()
    return LaunchPlan.model_validate_json((release / "plan.json").read_text(encoding="utf-8"), strict=False)


@pytest.mark.usefixtures("load")
def test_bench_notices_other_requests(home: Path) -> None:
    assert any(requests_in_flight(plan_of(home), DeploymentRef(StateDir(home), NAME)) for _ in range(10))


def engine_core(home: Path) -> int:
    """Return the process that computes, a child of the API server."""
    found = processes_with_variable(server_tag(StateDir(home).deployment(NAME).folder))
    return next(each.pid for each in found if b"EngineCore" in Path(f"/proc/{each.pid}/cmdline").read_bytes())


def rendered(home: Path, folder: Path) -> dict[str, str]:
    plan = plan_of(home)
    texts = render_monitoring(
        [plan], MonitoringSettings(folder=str(folder), user="0:0")
    ) | gateway_credentials(plan, StateDir(home))
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return texts


def dashboard_queries(texts: dict[str, str]) -> list[str]:
    panels = json.loads(texts["dashboards/deckard.json"])["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_metrics_page_has_every_queried_name(load: Load, home: Path, tmp_path: Path) -> None:
    texts, page = rendered(home, tmp_path), scrape(metrics_url(load.base_url))
    asked = {
        name
        for text in ("prometheus/rules.yml", "dashboards/deckard.json")
        for name in names_in_query(texts[text])
    }
    assert len(asked) > 12
    assert {name for name in asked if name not in page.samples} == set()
    listed = metric_names("vllm-0.19.1")
    others = ("python_", "deckard_")  # of the interpreter, and of the keys, which the gateway counts
    seen = {name for name in page.samples if not name.endswith("_created") and not name.startswith(others)}
    assert {name for name in seen if listed.find(name) is None} == set()


def test_colliding_ports_pull_nothing(base_url: str, tool: Tool) -> None:
    port = base_url.removesuffix("/v1").rpartition(":")[2]
    for ports in (("--grafana-port", port), ("--prometheus-port", "3000")):
        refused = tool("monitor", "up", "--name", NAME, *ports, "--dry-run", check=False)
        assert (refused.returncode, "need a port each" in refused.stderr) == (2, True)
    assert tool("monitor", "up", "--name", NAME, "--dry-run").returncode == 0


@pytest.fixture
def prometheus(home: Path, tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Debian's Prometheus with the very files that the container would get."""
    if shutil.which("prometheus") is None and not os.environ.get("CI"):
        pytest.skip("prometheus is not installed")
    texts, port = rendered(home, tmp_path), free_port()
    rules = tmp_path / "prometheus" / "rules.yml"
    rules.write_text(rules.read_text().replace("[5m]", "[30s]"))
    config = tmp_path / "prometheus" / "prometheus.yml"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    ) as process:
        yield port, texts
        process.terminate()


def test_frozen_engine_is_reported(load: Load, prometheus: tuple[int, dict[str, str]], home: Path) -> None:
    """A slice of `python -m tests.campaigns.alerts events`, with 30 s in place of the rules' five minutes."""
    port, _ = prometheus
    stalled = 'ALERTS{alertname="Stalled"}'
    eventually(lambda: ask(port, "rate(vllm:generation_tokens_total[30s]) > 0"), 90)
    assert ask(port, stalled) == []
    core = engine_core(home)
    os.kill(core, signal.SIGSTOP)
    try:
        eventually(lambda: ask(port, stalled), 110)
    finally:
        os.kill(core, signal.SIGCONT)
    eventually(lambda: ask(port, stalled) == [], 90)
    assert load.is_alive()


def test_prometheus_scrapes_and_loads_rules(
    load: Load, prometheus: tuple[int, dict[str, str]], tool: Tool, top: Terminal
) -> None:
    port, texts = prometheus
    eventually(lambda: ask(port, "rate(vllm:generation_tokens_total[1m]) > 0"), 90)
    assert ask(port, 'up{job="vllm"}')[0]["value"][1] == "1"
    rules = requests.get(f"http://127.0.0.1:{port}/api/v1/rules", timeout=10).json()["data"]["groups"][0][
        "rules"
    ]
    assert len(rules) == texts["prometheus/rules.yml"].count("alert:")
    for query in dashboard_queries(texts):
        assert (
            ask(port, query.replace("$__rate_interval", "1m")) or "ALERTS" in query or "hits_total" in query
        ), query
    top.until(working)
    load.stop()
    tool("down", "--name", NAME)
    top.until(lambda text: "no answer at" in text and "still asking" in text)
    eventually(lambda: ask(port, 'ALERTS{alertname="ServerDown",alertstate="pending"}'), 90)
    top.press("q")
    assert top.end() == 0
