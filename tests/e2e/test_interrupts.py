"""^C and kill -9 of `up` in each phase of a real start: the next `up` converges, with one server and nothing half.

DECKARD_ALL_INTERRUPTS=1 runs every phase with both signals on both runtimes (docs/validation/ has the figures); without
it a slice runs.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deckard_deploy.rehearsal.script import PLAIN_TEXT
from tests.e2e.conftest import Tool, docker
from tests.support.ports import free_port

NAME = "interrupted"
# The message of `up` for each phase; the engine's log has the same order.
PHASES = [
    "plan",
    "start",
    "weights  ",
    "imports",
    "weights 100 %|weights$",
    "KV cache",
    "warm-up",
    "server",
    "ready",
]
SIGNALS = [signal.SIGINT, signal.SIGKILL]
SLICE = {
    ("process", "imports", signal.SIGKILL),
    ("process", "KV cache", signal.SIGINT),
    ("docker", "imports", signal.SIGINT),
    ("docker", "server", signal.SIGKILL),
}
ALL = list(itertools.product(["process", "docker"], PHASES, SIGNALS))
CASES = [case for case in ALL if os.environ.get("DECKARD_ALL_INTERRUPTS") or case in SLICE]
MARKS = {"process": pytest.mark.vllm, "docker": pytest.mark.docker}


@pytest.fixture(scope="module")
def port() -> str:
    return str(free_port())


@pytest.fixture
def deployment(request: pytest.FixtureRequest, tool: Tool, port: str) -> Iterator[list[str]]:
    """Arguments of an `up` on the runtime that the case names; down afterwards, and down before."""
    runtime = request.param
    engine = []
    if runtime == "docker":
        engine = ["--engine", "vllm-0.19.1-cpu-docker", "--image", request.getfixturevalue("image")]
        engine += ["--set", f"gateway_image={request.getfixturevalue('gateway_image')}"]
    tool("down", "--name", NAME, check=False)
    yield ["up", "--profile", "cpu", "--name", NAME, "--port", port, *engine]
    tool("down", "--name", NAME, check=False)


def interrupt(arguments: list[str], home: Path, phase: str, number: signal.Signals) -> int:
    """Start `up`, send the signal when it says that it has come to the phase, return its exit code."""
    command = [sys.executable, "-m", "deckard_deploy", *arguments]
    wanted = phase.split("|")
    with subprocess.Popen(
        command,
        env={**os.environ, "DECKARD_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if any(
                word.rstrip("$") in line if not word.endswith("$") else line.rstrip().endswith(word[:-1])
                for word in wanted
            ):
                up.send_signal(number)
                break
        up.stderr.read()
    return up.returncode


def servers(home: Path, runtime: str) -> int:
    if runtime == "docker":
        return len(
            docker(
                "ps",
                "--quiet",
                "--filter",
                f"label=deckard.deployment={NAME}",
                "--filter",
                "label=deckard.launch",
            ).split()
        )
    found = 0
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("DECKARD_DEPLOYMENT", "") == str(home / "deployments" / NAME)
            found += ours and "serve" in process.cmdline()
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.parametrize(
    ("deployment", "phase", "number"),
    [
        pytest.param(
            *case, marks=MARKS[case[0]], id=f"{case[0]}-{case[1].strip().partition('|')[0]}-{case[2].name}"
        )
        for case in CASES
    ],
    indirect=["deployment"],
)
def test_up_after_interrupt_converges(
    deployment: list[str], phase: str, number: signal.Signals, tool: Tool, home: Path
) -> None:
    runtime = "docker" if "--image" in deployment else "process"
    code = interrupt(deployment, home, phase, number)
    # An `up` that was ready when the signal came may have ended well.
    assert code in ({130, 0} if number == signal.SIGINT else {-signal.SIGKILL, 0})
    assert tool(*deployment).stdout.strip().startswith("http://127.0.0.1:")
    status = json.loads(tool("status", "--name", NAME, "--json", check=False).stdout)
    assert (status["state"], status["answers"]) == ("running", "ready")
    assert servers(home, runtime) == 1
    assert tool("chat", "Hello?", "--name", NAME).stdout.strip() == PLAIN_TEXT
    assert list((home / "deployments").rglob(".tmp-*")) == []
    for file in (home / "deployments" / NAME).rglob("*.json"):
        json.loads(file.read_text())
