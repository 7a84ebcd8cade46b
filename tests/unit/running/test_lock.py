import os
import signal
import subprocess
import sys

import pytest

from deckard_deploy.errors import DeploymentBusyError
from deckard_deploy.running.lock import lock_deployment, owner_of
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

HOLD = """
import sys, time
from pathlib import Path
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import lock_deployment
with lock_deployment(StateDir(Path(sys.argv[1])).create("box"), verb="up"):
    print("held", flush=True)
    time.sleep(600)
"""
# The end of stdin makes all of them ask at the same moment.
RACE = """
import sys, time
from pathlib import Path
from deckard_deploy.errors import DeploymentBusyError
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import lock_deployment
deployment = StateDir(Path(sys.argv[1])).create("box")
print("there", flush=True)
sys.stdin.read()
try:
    with lock_deployment(deployment, verb="up"):
        print("won", flush=True)
        time.sleep(600)
except DeploymentBusyError as error:
    print(error.message, flush=True)
"""


def start_holder(world: FakeDeployment, script: str = HOLD) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(world.state.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def owner_pid(world: FakeDeployment) -> int | None:
    owner = owner_of(world.deployment)
    return owner.process.pid if owner else None


def test_second_holder_is_refused_with_owner(world):
    with start_holder(world) as first:
        assert read_line(first) == "held\n"
        with pytest.raises(DeploymentBusyError) as caught, lock_deployment(world.deployment, verb="down"):
            pytest.fail("two at once")
        first.kill()
    assert f"pid {first.pid}, `deckard-deploy up`, since 20" in caught.value.message
    assert caught.value.exit_code == 8


def test_killed_holder_releases_the_lock(world):
    with start_holder(world) as first:
        read_line(first)
        first.kill()
    assert world.deployment.lock_owner.exists()  # stale
    assert owner_of(world.deployment) is None
    with lock_deployment(world.deployment, verb="down"):
        assert owner_pid(world) == os.getpid()
    assert not world.deployment.lock_owner.exists()


@pytest.mark.parametrize(
    "content", ["", "{", '{"process": {"pid": 1, "started": 0, "boot": ""}, "verb": "up", "since": "x"}']
)
def test_unreadable_owner_is_not_named(world, content):
    with start_holder(world) as first:
        read_line(first)
        world.deployment.lock_owner.write_text(content)
        with (
            pytest.raises(DeploymentBusyError, match="another deckard-deploy has just taken"),
            lock_deployment(world.deployment, verb="down"),
        ):
            pytest.fail("two at once")
        first.kill()


def test_interrupt_releases_the_lock(world):
    with pytest.raises(KeyboardInterrupt), lock_deployment(world.deployment, verb="up"):
        raise KeyboardInterrupt
    with lock_deployment(world.deployment, verb="up"):
        assert owner_pid(world) == os.getpid()


def test_one_of_many_gets_the_lock(world):
    racers = [start_holder(world, RACE) for _ in range(8)]
    try:
        for racer in racers:
            assert read_line(racer) == "there\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.close()
            racer.stdin = None
        answers = [read_line(racer) for racer in racers]
    finally:
        for racer in racers:
            racer.send_signal(signal.SIGKILL)
            racer.communicate()
    assert answers.count("won\n") == 1
    assert sum("deployment box" in line for line in answers) == 7
    eventually(lambda: owner_of(world.deployment) is None)
