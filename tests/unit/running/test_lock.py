import os
import signal
import subprocess
import sys

import pytest

from deckard_deploy.errors import DeploymentBusyError
from deckard_deploy.running.lock import held, owner_of
from tests.support.fake_deployment import World
from tests.support.waiting import eventually

HOLD = """
import sys, time
from pathlib import Path
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import held
with held(StateDir(Path(sys.argv[1])).create("box"), verb="up"):
    print("held", flush=True)
    time.sleep(600)
"""
# The file that the start is taken from makes all of them ask at the same moment.
RACE = """
import sys, time
from pathlib import Path
from deckard_deploy.errors import DeploymentBusyError
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import held
deployment = StateDir(Path(sys.argv[1])).create("box")
print("there", flush=True)
sys.stdin.read()
try:
    with held(deployment, verb="up"):
        print("won", flush=True)
        time.sleep(600)
except DeploymentBusyError as error:
    print(error.message, flush=True)
"""


def holder(world: World, script: str = HOLD) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(world.state.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def owner_pid(world: World) -> int | None:
    owner = owner_of(world.deployment)
    return owner.process.pid if owner else None


def test_the_second_is_told_who_holds_it(world):
    with holder(world) as first:
        assert said(first) == "held\n"
        with pytest.raises(DeploymentBusyError) as caught, held(world.deployment, verb="down"):
            pytest.fail("two at once")
        first.kill()
    assert f"pid {first.pid}, `deckard-deploy up`, since 20" in caught.value.message
    assert caught.value.exit_code == 8


def test_a_killed_holder_holds_nothing_and_is_not_named(world):
    with holder(world) as first:
        said(first)
        first.kill()
    assert world.deployment.lock_owner.exists()  # stale
    assert owner_of(world.deployment) is None
    with held(world.deployment, verb="down"):
        assert owner_pid(world) == os.getpid()
    assert not world.deployment.lock_owner.exists()


@pytest.mark.parametrize(
    "content", ["", "{", '{"process": {"pid": 1, "started": 0, "boot": ""}, "verb": "up", "since": "x"}']
)
def test_a_holder_who_cannot_be_read_is_not_invented(world, content):
    with holder(world) as first:
        said(first)
        world.deployment.lock_owner.write_text(content)
        with (
            pytest.raises(DeploymentBusyError, match="another deckard-deploy has just taken"),
            held(world.deployment, verb="down"),
        ):
            pytest.fail("two at once")
        first.kill()


def test_an_interrupt_gives_it_back(world):
    with pytest.raises(KeyboardInterrupt), held(world.deployment, verb="up"):
        raise KeyboardInterrupt
    with held(world.deployment, verb="up"):
        assert owner_pid(world) == os.getpid()


def test_of_many_at_once_one_wins_and_all_others_are_told(world):
    racers = [holder(world, RACE) for _ in range(8)]
    try:
        for racer in racers:
            assert said(racer) == "there\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.close()
            racer.stdin = None
        answers = [said(racer) for racer in racers]
    finally:
        for racer in racers:
            racer.send_signal(signal.SIGKILL)
            racer.communicate()
    assert answers.count("won\n") == 1
    assert sum("deployment box" in line for line in answers) == 7
    eventually(lambda: owner_of(world.deployment) is None)
