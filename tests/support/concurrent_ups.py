"""Many `up`s at once: what a test runs a few of and tests/campaigns/concurrent_ups.py many."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

from deckard_deploy.errors import DeployError
from deckard_deploy.running.deploy import DeploymentContext, deploy
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Launch, Release
from deckard_deploy.running.runtime import Runtime
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

# Forked from a process that has imported everything, because fifty starts of Python would hide the
# measurement.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__, "tests.support.docker_deployment", "docker"])


@dataclass(frozen=True)
class Participant:
    """The end of one `up`: its exit code, its wall and CPU seconds, and its message."""

    code: int
    took_s: float
    worked_s: float
    said: str


def deploy_at_once(
    open_context: Callable[[Path], DeploymentContext],
    folder: Path,
    release: Release,
    launch: Launch,
    count: int,
) -> list[Participant]:
    """Deploy one release from `count` processes at the same moment; one holds until the others have ended."""
    turn, leave = _PROCESSES.Barrier(count), _PROCESSES.Event()
    pipes = [_PROCESSES.Pipe(duplex=False) for _ in range(count)]
    started = [
        _PROCESSES.Process(
            target=_take_part, args=(open_context, folder, release, launch, turn, leave, theirs)
        )
        for _, theirs in pipes
    ]
    for one in started:
        one.start()
    eventually(lambda: sum(one.is_alive() for one in started) <= 1)
    leave.set()
    left = []
    for one, (ours, _) in zip(started, pipes, strict=True):
        took, worked, said = ours.recv()
        one.join()
        left.append(Participant(one.exitcode or 0, took, worked, said))
    return left


def _take_part(  # noqa: PLR0917  a process receives all that it needs
    open_context: Callable[[Path], DeploymentContext],
    folder: Path,
    release: Release,
    launch: Launch,
    turn: Barrier,
    leave: Event,
    result: Connection,
) -> None:
    context = open_context(folder)
    turn.wait()
    began, worked, code, said = time.monotonic(), time.process_time(), 0, "up"
    try:
        with lock_deployment(context.releases.deployment, verb="up"):
            deploy(context, release, launch)
            leave.wait()
    except DeployError as error:
        code, said = error.exit_code, error.message
    result.send((time.monotonic() - began, time.process_time() - worked, said))
    sys.exit(code)


def open_fake_deployment(folder: Path) -> DeploymentContext:
    """Return the deployment in the folder, as one of the processes opens it."""
    fake = FakeDeployment(folder)
    return DeploymentContext(
        releases=fake.releases, runtimes={"process": fake.runtime()}, follow=_follow, say=lambda _: None
    )


def _follow(release: Release, _: Runtime) -> None:
    eventually(lambda: FakeDeployment.names_on(release.plan.port) is not None)
