"""The whole road on the process runtime: a real vLLM 0.19.1, from nothing to answers and back to nothing."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from openai import OpenAI

from deckard_deploy import api
from deckard_deploy.operations.reporting import SilentReporter
from deckard_deploy.rehearsal.script import ANSWER_TEXT, PLAIN_TEXT, THOUGHT_TEXT, TOOL_ARGUMENTS, TOOL_NAME
from deckard_deploy.running.watch import WatchRecord
from tests.e2e import clients
from tests.e2e.conftest import Tool
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.vllm
NAME = "road"
RESTART_S = 600.0  # on a busy machine; only ends a test that has failed


class Recorder(SilentReporter):
    """A reporter that keeps its lines."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def port() -> str:
    return str(free_port())


@pytest.fixture(scope="module")
def up(tool: Tool, port: str) -> Iterator[Tool]:
    """`up` with this module's name and port; whatever happens, nothing runs afterwards."""

    def call(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return tool("up", "--profile", "cpu", "--name", NAME, "--port", port, *arguments, check=check)

    yield call
    tool("down", "--name", NAME, check=False)


@pytest.fixture(scope="module")
def first_up(up: Tool, tool: Tool, port: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """The KV cache that `plan` foresees, and then the start."""
    planned = json.loads(tool("plan", "--profile", "cpu", "--name", NAME, "--port", port, "--json").stdout)
    return planned["memory"]["kv_cache"], up()


@pytest.fixture(scope="module")
def base_url(first_up: tuple[dict[str, Any], subprocess.CompletedProcess[str]]) -> str:
    return first_up[1].stdout.strip()


def servers(home: Path) -> list[int]:
    """Processes of this state directory's servers, by the mark in their environment."""
    found = []
    for process in psutil.process_iter(["pid"]):
        try:
            if process.environ().get("DECKARD_DEPLOYMENT", "").startswith(str(home)):
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def test_stdout_is_base_url(base_url: str, port: str) -> None:
    assert base_url == f"http://127.0.0.1:{port}/v1"


def test_engine_memory_matches_plan(first_up, base_url: str, tool: Tool) -> None:
    planned, up = first_up
    log = tool("logs", "--name", NAME, "--tail", "2000").stdout
    tokens = re.search(r"KV cache size: ([\d,]+) tokens", log)
    concurrency = re.search(r"Maximum concurrency for 1,024 tokens per request: ([\d.]+)x", log)
    metrics = requests.get(base_url.removesuffix("/v1") + "/metrics", timeout=30).text
    blocks = re.search(r'num_gpu_blocks="(\d+)"', metrics)
    assert tokens
    assert concurrency
    assert blocks
    assert int(tokens[1].replace(",", "")) == planned["tokens"]
    assert float(concurrency[1]) == planned["max_concurrency"]
    assert int(blocks[1]) == planned["blocks"]
    assert f"KV cache of {planned['tokens']:,} tokens" in up.stderr
    assert "as planned" in up.stderr


def test_up_says_what_a_reboot_does(first_up) -> None:
    """Nobody has installed a unit here."""
    _, up = first_up
    assert "reboot   it does not start by itself" in up.stderr


def test_plain_chat_is_answered(base_url: str) -> None:
    assert clients.plain(base_url) == (PLAIN_TEXT, PLAIN_TEXT)


def test_reasoning_is_split_from_answer(base_url: str) -> None:
    said = clients.reasoning(base_url)
    assert (said["whole_reasoning"].strip(), said["whole_content"].strip()) == (THOUGHT_TEXT, ANSWER_TEXT)
    assert (said["reasoning"].strip(), said["content"].strip()) == (THOUGHT_TEXT, ANSWER_TEXT)


def test_tool_is_called(base_url: str) -> None:
    for name, arguments in clients.tool_call(base_url):
        assert (name, json.loads(arguments)) == (TOOL_NAME, TOOL_ARGUMENTS)


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_concurrent_chat(base_url: str, at_once: int) -> None:
    counts = clients.concurrent_chat(base_url, at_once)
    assert len(counts) == at_once
    assert min(counts) > 0


def test_verbs_agree_on_state(base_url: str, tool: Tool) -> None:
    status = json.loads(tool("status", "--name", NAME, "--json", check=False).stdout)
    assert (status["state"], status["answers"], status["base_url"]) == ("running", "ready", base_url)
    assert tool("wait", "--name", NAME).stdout.strip() == base_url
    assert tool("chat", "Hello?", "--name", NAME).stdout.strip() == PLAIN_TEXT
    assert "Application startup complete" in tool("logs", "--name", NAME, "--tail", "2000").stdout


def test_bench_records_compares_and_reports(base_url: str, tool: Tool, tmp_path: Path) -> None:
    assert base_url
    small = ("--workload", "random", "--output-tokens", "16", "--input-tokens", "32")
    counts = ("--concurrency", "1,2", "--runs", "2", "--requests", "2")
    record = json.loads(tool("bench", "--name", NAME, *counts, *small, "--json").stdout)
    assert [(run["concurrency"], run["completed"], run["output_tokens"]) for run in record["runs"]] == [
        *[(1, 2, 32)] * 2,
        *[(2, 4, 64)] * 2,
    ]
    assert len({run["seed"] for run in record["runs"]}) == 4
    assert (
        record["subject"]["plan"]
        == json.loads(tool("status", "--name", NAME, "--json", check=False).stdout)["plan"]
    )
    assert record["id"] in tool("bench", "list").stdout
    assert "unknown" in tool("bench", "show", "last").stdout  # nobody knows this machine's memory bandwidth
    same = json.loads(tool("bench", "compare", record["id"], "last", "--json", "--fail-below", "0.95").stdout)
    assert (same["overall"]["ratio"], same["overall"]["verdict"]) == (1.0, "no difference seen")
    page = tool("bench", "report", "last", "--compare", "seed", "-o", str(tmp_path)).stdout.strip()
    assert Path(page).read_text().count("data:image/png") == 2
    prompts = tmp_path / "prompts.json"
    dry = ("--dry-run", "--save-prompts", str(prompts))
    typed = shlex.split(tool("bench", "--name", NAME, *counts, *small, *dry).stdout.strip())
    assert " ".join(record["command"][1:]) in " ".join(typed)
    assert "Successful requests" in subprocess.run(typed, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("base_url")
def test_compare_with_itself_sees_no_difference(tool: Tool, tmp_path: Path) -> None:
    """0.19.1 answers /v1/completions with prompt_logprobs, and the gateway and the filter of requests let it pass."""
    text, kept = tmp_path / "text", tmp_path / "kept.json"
    text.write_text(" ".join(f"{number} green bottles stand on a wall." for number in range(60)))
    lengths = ("--text", str(text), "--characters", "100", "--passages", "10")
    tool("compare", NAME, "--save", str(kept), *lengths)
    found = json.loads(tool("compare", str(kept), NAME, "--json", *lengths).stdout)
    assert found["no_difference"]
    assert (found["kl"]["value"], found["same_greedy"]["value"]) == (0, 1)
    assert found["perplexity_ratio"]["low"] == found["perplexity_ratio"]["high"] == 1
    assert found["tokens"] >= 1000  # a byte is a token
    assert found["a"]["perplexity"] > 1
    assert found["a"]["weight_bytes"] == found["b"]["weight_bytes"]


def test_second_up_does_nothing(base_url: str, up: Tool, home: Path) -> None:
    before = servers(home)
    again = up()
    assert again.stdout.strip() == base_url
    assert "nothing to do" in again.stderr
    assert servers(home) == before


def test_python_api_drives_same_endpoint(base_url: str, port: str, home: Path) -> None:
    """One process, no command line: the plan, a start that has nothing to do, the status, and a client's answer."""
    lines: list[str] = []
    choice = api.Choice(profile="cpu", settings=(f"name={NAME}", f"publish.port={port}"))
    planned = api.plan(choice, state_dir=home)
    before = servers(home)
    running = api.up(choice, state_dir=home, report=Recorder(lines))
    assert servers(home) == before
    assert running == (NAME, planned.plan_hash, base_url, running.served_name)
    assert any("nothing to do" in line for line in lines)
    assert planned.changes == ()
    assert api.status(name=NAME, state_dir=home)["answers"] == "ready"
    assert "vllm serve" in api.render(choice, "command")
    endpoint = api.chat_endpoint(name=NAME, state_dir=home)
    assert endpoint.base_url == base_url
    with OpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key or "none") as client:
        answer = client.chat.completions.create(
            model=endpoint.served_name, messages=[{"role": "user", "content": "Hello?"}], max_tokens=8
        )
    assert answer.choices[0].message.content


def test_failed_change_is_shown_and_rolled_back(base_url: str, up: Tool, tool: Tool) -> None:
    # 7 does not divide anything that it has to: vLLM refuses it after its imports, the parser does not.
    failed = up("--set", "block-size=7", check=False)
    assert failed.returncode == 6, failed.stderr
    assert failed.stdout == ""
    assert "~ --block-size" in failed.stderr or "+ --block-size" in failed.stderr
    status = json.loads(tool("status", "--name", NAME, "--json", check=False).stdout)
    assert (status["state"], status["answers"]) == ("running", "ready")
    assert clients.plain(base_url)[0] == PLAIN_TEXT


@pytest.mark.usefixtures("base_url")
def test_busy_deployment_is_refused(up: Tool, home: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from deckard_deploy.running.layout import StateDir;"
        "from deckard_deploy.running.lock import lock_deployment\n"
        f"with lock_deployment(StateDir(Path({str(home)!r})).deployment({NAME!r}), verb='test'):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = up(check=False)
        holder.kill()
    assert refused.returncode == 8
    assert f"pid {holder.pid}" in refused.stderr


def test_exposed_endpoint_has_tls_and_keys(
    up: Tool, tool: Tool, home: Path, port: str, base_url: str
) -> None:
    """Other machines may come, on loopback all the same: nobody is let in here."""
    refused = up("--expose", "127.0.0.1", check=False)
    assert (refused.returncode, "needs a key" in refused.stderr) == (2, True)
    assert clients.plain(base_url)[0] == PLAIN_TEXT
    key = tool("keys", "add", "alice").stdout.strip()
    done = up("--expose", "127.0.0.1")
    assert done.stdout.strip() == f"https://127.0.0.1:{port}/v1"
    assert (
        f"exposed  https://127.0.0.1:{port}/v1 to every machine that reaches 127.0.0.1; keys: alice"
        in done.stderr
    )
    certificate = str(home / "deployments" / NAME / "gateway" / "certificate.pem")
    url, asked = f"{done.stdout.strip()}/models", {"Authorization": f"Bearer {key}"}
    assert requests.get(url, verify=certificate, timeout=10).status_code == 401
    assert requests.get(url, headers=asked, verify=certificate, timeout=10).status_code == 200
    # Without TLS.
    assert requests.get(url.replace("https:", "http:"), headers=asked, timeout=10).status_code == 400
    small = ("--concurrency", "1", "--runs", "2", "--requests", "1", "--output-tokens", "8", "--json")
    record = json.loads(tool("bench", "--name", NAME, *small).stdout)
    assert [(run["completed"], run["failed"]) for run in record["runs"]] == [(1, 0)] * 2


def test_rollback_restores_previous_release(up: Tool, tool: Tool, base_url: str, home: Path) -> None:
    before = servers(home)
    planned = tool("rollback", "--name", NAME, "--dry-run")
    assert (planned.stdout, "would" in planned.stderr, servers(home)) == ("", True, before)
    back = tool("rollback", "--name", NAME)
    assert back.stdout.strip() == base_url
    assert "answer   " in back.stderr
    assert "exposed  http" not in back.stderr
    status = json.loads(tool("status", "--name", NAME, "--json", check=False).stdout)
    assert (status["state"], status["answers"], status["base_url"]) == ("running", "ready", base_url)
    assert tool("chat", "Hello?", "--name", NAME).stdout.strip() == PLAIN_TEXT
    shutil.rmtree(home / "keys")  # so that the tests below, and of other modules, need none
    assert "nothing to do" in up().stderr


def engine_core(home: Path) -> int:
    """The process of vLLM that computes; its API server is another."""
    (found,) = [pid for pid in servers(home) if "EngineCore" in " ".join(psutil.Process(pid).cmdline())]
    return found


@contextlib.contextmanager
def watching(home: Path, said: Path) -> Iterator[Callable[[], WatchRecord]]:
    """`watch`, and what it has written down."""
    record = home / "deployments" / NAME / "watch.json"
    command = [
        sys.executable,
        "-m",
        "deckard_deploy",
        "watch",
        "--name",
        NAME,
        "--interval",
        "1",
        "--deadline",
        "10",
    ]
    with said.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, "DECKARD_HOME": str(home)}, stderr=output)
    try:
        yield lambda: WatchRecord.model_validate_json(record.read_text())
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_watch_restarts_hanging_and_dead_engine(
    base_url: str, tool: Tool, home: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    with watching(home, said) as record:
        eventually(lambda: "healthy" in said.read_text())
        hung = engine_core(home)
        os.kill(hung, signal.SIGSTOP)
        eventually(lambda: record().state == "degraded", RESTART_S)
        # Of the API server alone.
        assert requests.get(f"{base_url}/health/ready", timeout=10).status_code == 200
        assert json.loads(tool("status", "--name", NAME, "--json", check=False).stdout)["watch"] == "degraded"
        eventually(lambda: record().state == "healthy", RESTART_S)
        assert not psutil.pid_exists(hung)
        assert clients.plain(base_url)[0] == PLAIN_TEXT
        os.kill(engine_core(home), signal.SIGKILL)
        eventually(lambda: len(record().restarts) == 2 and record().state == "healthy", RESTART_S)
        assert clients.plain(base_url)[0] == PLAIN_TEXT
    silent, dead = record().restarts
    assert (silent.outcome, dead.outcome) == ("ready", "ready"), said.read_text()
    assert silent.reason == f"not answering: ReadTimeout at {base_url}"
    # Whoever was first.
    assert dead.reason.startswith(("it was restarted since", "it crashes", "engine dead"))


def test_down_leaves_nothing_running(base_url: str, tool: Tool, home: Path) -> None:
    assert base_url
    tool("down", "--name", NAME)
    assert servers(home) == []
    stopped = tool("status", "--name", NAME, check=False)
    assert (stopped.returncode, stopped.stdout.split()[1]) == (3, NAME)
    assert tool("wait", "--name", NAME, check=False).returncode == 6


def test_bench_startup_keeps_endpoint_running(tool: Tool, home: Path) -> None:
    record = json.loads(tool("bench", "startup", "--name", NAME, "--runs", "1", "--json").stdout)
    assert [start["caches"] for start in record["starts"]] == ["empty", "kept"]
    for start in record["starts"]:
        assert 0 < sum(start["phases"].values()) < start["total_s"] + 1
        assert len(start["phases"]) > 3
    # Each is its own start, not the one before.
    assert record["starts"][0]["total_s"] != record["starts"][1]["total_s"]
    assert [path.stem for path in (home / "bench" / "startups").iterdir()] == [record["id"]]
    assert json.loads(tool("status", "--name", NAME, "--json", check=False).stdout)["answers"] == "ready"


def test_down_stops_server_without_records(up: Tool, tool: Tool, home: Path) -> None:
    assert "nothing to do" in up().stderr
    for release in (home / "deployments" / NAME / "releases").iterdir():
        shutil.rmtree(release)
    assert servers(home)
    assert tool("down", "--name", NAME).returncode == 0
    assert servers(home) == []
