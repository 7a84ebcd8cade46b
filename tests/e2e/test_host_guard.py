"""`watch` on a machine that runs out of memory, or whose GPU is wedged.

The verb is real. A file of the test is bound over its /proc/meminfo in a mount namespace, and nvidia-smi is a script.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.planning.plan import Gpus, LaunchPlan
from deckard_deploy.running.watch import read
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

MIB = 1 << 10  # in KiB, as /proc/meminfo counts
ENOUGH, LITTLE, TOO_LITTLE = 8192 * MIB, 1900 * MIB, 400 * MIB


class WatchedMachine:
    """A deployment of a profile, `watch`, and what `watch` sees of the machine."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeDeployment(folder)
        self.meminfo, self.said, self._programs = folder / "meminfo", folder / "said", folder / "programs"
        self._programs.mkdir()
        self.set_available(ENOUGH)
        self.process: subprocess.Popen[bytes] | None = None

    def set_available(self, kib: int) -> None:
        self.meminfo.write_text(f"MemTotal:       {128 << 20} kB\nMemAvailable:   {kib} kB\n")

    def set_gpu(self, line: str) -> None:
        program = self._programs / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{line}'\n")
        program.chmod(0o755)

    def plan(self, profile: str) -> LaunchPlan:
        plan = self.fake.startable(self.fake.plan())
        return plan.model_copy(update={"profile": profile})

    def watch(self, *more: str) -> None:
        verb = [sys.executable, "-m", "deckard_deploy", "watch", "--name", "box", "--interval", "1", *more]
        line = 'mount --bind "$0" /proc/meminfo && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", line, str(self.meminfo), *verb]
        environment = {
            **os.environ,
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "DECKARD_HOME": str(self.fake.state.root),
        }
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        eventually(lambda: self.state() == "healthy")

    def state(self) -> str | None:
        record = read(self.fake.deployment)
        return record.state if record else None

    def reason(self) -> str:
        record = read(self.fake.deployment)
        return (record.reason or "") if record else ""

    def freeze(self) -> None:
        for server in self.fake.processes():
            os.kill(server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for server in self.fake.processes():
            os.kill(server.pid, signal.SIGCONT)

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.thaw()
        self.fake.end()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WatchedMachine]:
    made = WatchedMachine(tmp_path)
    yield made
    made.end()


def status_code(machine: WatchedMachine) -> tuple[int, str]:
    command = [sys.executable, "-m", "deckard_deploy", "status", "--name", "box", "--json"]
    environment = {**os.environ, "DECKARD_HOME": str(machine.fake.state.root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, str(json.loads(done.stdout)["state"])


def test_unified_memory_warns_and_then_stops(machine: WatchedMachine) -> None:
    release = machine.fake.proven(machine.plan("spark"))
    machine.watch()
    assert machine.process is not None
    machine.set_available(LITTLE)
    eventually(
        lambda: (
            b"memory   1.9 GiB available: below 512 MiB the engine is stopped" in machine.said.read_bytes()
        )
    )
    assert (machine.state(), bool(machine.fake.names())) == ("healthy", True)
    machine.set_available(TOO_LITTLE)
    assert machine.process.wait(60) == 6
    assert machine.state() == "given up"
    reason = "400 MiB of memory are available, and below 512 MiB a machine with unified memory freezes"
    assert machine.reason() == reason
    assert machine.fake.processes() == []
    assert reason in (release.folder / "failure.log").read_text()
    assert status_code(machine)[0] == 6


def test_discrete_memory_is_left_to_the_kernel(machine: WatchedMachine) -> None:
    """The control: the same file, on a machine whose engine has memory of its own."""
    machine.fake.proven(machine.plan("h200"))
    before = machine.fake.processes()
    machine.set_available(TOO_LITTLE)
    machine.watch("--deadline", "2")
    machine.freeze()
    eventually(lambda: machine.state() == "degraded", 120)
    assert machine.reason().startswith("not answering: ")
    machine.thaw()
    eventually(lambda: machine.state() == "healthy")
    assert (machine.fake.processes(), b"memory" in machine.said.read_bytes()) == (before, False)


def test_frozen_engine_of_wedged_gpu_is_named(machine: WatchedMachine) -> None:
    machine.set_gpu("NVIDIA GB10, 19.50, 96")
    machine.fake.proven(machine.plan("spark").model_copy(update={"gpus": Gpus(count=1)}))
    machine.watch("--deadline", "2", "--interval", "5")
    machine.freeze()
    eventually(lambda: machine.state() == "degraded", 120)
    assert machine.reason().startswith("not answering: ")
    wedged = (
        "; NVIDIA GB10 reports 96 % at 19.50 W: it is wedged, and the machine may have to be switched off"
    )
    assert machine.reason().endswith(wedged)
