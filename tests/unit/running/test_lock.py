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


def start_holder(fake: FakeDeployment, script: str = HOLD) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(fake.state.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def owner_pid(fake: FakeDeployment) -> int | None:
    owner = owner_of(fake.deployment)
    return owner.process.pid if owner else None


def test_second_holder_is_refused_with_owner(fake):
    with start_holder(fake) as first:
        assert read_line(first) == "held\n"
        with pytest.raises(DeploymentBusyError) as caught, lock_deployment(fake.deployment, verb="down"):
            pytest.fail("two at once")
        first.kill()
    assert f"pid {first.pid}, `deckard-deploy up`, since 20" in caught.value.message
    assert caught.value.exit_code == 8


def test_killed_holder_releases_the_lock(fake):
    with start_holder(fake) as first:
        read_line(first)
        first.kill()
    assert fake.deployment.lock_owner.exists()  # stale
    assert owner_of(fake.deployment) is None
    with lock_deployment(fake.deployment, verb="down"):
        assert owner_pid(fake) == os.getpid()
    assert not fake.deployment.lock_owner.exists()


@pytest.mark.parametrize(
    "content", ["", "{", '{"process": {"pid": 1, "started": 0, "boot": ""}, "verb": "up", "since": "x"}']
)
def test_unreadable_owner_is_not_named(fake, content):
    with start_holder(fake) as first:
        read_line(first)
        fake.deployment.lock_owner.write_text(content)
        with (
            pytest.raises(DeploymentBusyError, match="another deckard-deploy has just taken"),
            lock_deployment(fake.deployment, verb="down"),
        ):
            pytest.fail("two at once")
        first.kill()


def test_interrupt_releases_the_lock(fake):
    with pytest.raises(KeyboardInterrupt), lock_deployment(fake.deployment, verb="up"):
        raise KeyboardInterrupt
    with lock_deployment(fake.deployment, verb="up"):
        assert owner_pid(fake) == os.getpid()


def test_one_of_many_gets_the_lock(fake):
    racers = [start_holder(fake, RACE) for _ in range(8)]
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
    eventually(lambda: owner_of(fake.deployment) is None)
