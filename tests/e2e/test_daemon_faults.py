"""The docker daemon is ended, killed or stopped under a deployment, and comes back."""

import gc
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.running import watch
from deckard_deploy.running.deploy import decide, deploy
from deckard_deploy.running.docker.daemon import DaemonConnection
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.running.watch import Canary, Watch
from deckard_deploy.startup.background_call import BackgroundCall
from tests.e2e.private_daemon import PrivateDaemon, private_daemon
from tests.support.docker_deployment import (
    DockerDeployment,
    answers,
    deployment_in,
    docker,
    make_image,
    proven,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a docker daemon"),
    # docker 7's UnixHTTPConnection.connect leaves its socket to the garbage collector when nobody listens.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
DEADLINE_S = 1.0  # in place of what a call has


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDaemon]:
    with private_daemon() as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", made.host)
        make_image(tmp_path_factory.mktemp("busybox"))
        yield made


class Watched:
    """A deployment that is ready, and a watch over it."""

    def __init__(self, project: DockerDeployment) -> None:
        self.project = project
        self.plan = project.plan(port=free_port())
        self.context = project.context(proven)
        self.release, launch = project.stored(self.plan)
        self.ready = deploy(self.context, self.release, launch)
        self.daemon = DaemonConnection()
        self.watch = Watch(
            project.deployment,
            canary=self.canary,
            say=lambda _: None,
            daemon_ended=lambda _: self.daemon.has_ended(lambda: os.environ["DOCKER_HOST"]),
        )
        assert self.watch.check(self.context)  # it knows the daemon from now on

    def canary(self, _: Release) -> Canary:
        return Canary(answered=answers(self.plan.port), detail="not answering")

    def record(self) -> watch.WatchRecord:
        found = watch.read(self.project.deployment)
        assert found
        return found

    def containers(self) -> list[str]:
        return docker("ps", "-q", "--filter", f"label=deckard.deployment={self.project.name}").split()


@pytest.fixture
def watched(daemon: PrivateDaemon, tmp_path: Path) -> Iterator[Watched]:
    with deployment_in(tmp_path, "x" + secrets.token_hex(3)) as project:
        watched = Watched(project)
        yield watched
        watched.daemon.close()
        if daemon.process.poll() is not None:
            daemon.start()
    gc.collect()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_stopped_daemon_is_reported_until_back(
    watched: Watched, daemon: PrivateDaemon, number: signal.Signals
) -> None:
    daemon.end(number)
    assert watched.watch.check(watched.context)
    record = watched.record()
    assert (record.state, record.restarts) == ("degraded", ())
    assert "is not running" in str(record.reason)
    with pytest.raises(EnvironmentUnfitError, match="is not running"):
        watched.project.runtime().observe()
    daemon.start()
    watched.watch.check(watched.context)  # whatever became of the container
    assert watched.record().state == "healthy"
    assert answers(watched.plan.port)
    assert len(watched.containers()) == 1
    assert len(watched.record().restarts) <= 1
    assert [one for one in watched.record().restarts if one.counted] == []
    seen = watched.project.runtime().observe()
    assert decide(watched.plan.hash, seen, watched.release.recorded_launch()).action == "nothing"


def test_hanging_daemon_times_out(
    watched: Watched, daemon: PrivateDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deckard_deploy.running.docker.client.CALL_TIMEOUT_S", DEADLINE_S)
    before = watched.containers()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        for ask in (watched.project.runtime().observe, watched.project.runtime().stop):
            with pytest.raises(EnvironmentUnfitError, match="did not answer within 1 s"):
                within(5 * DEADLINE_S, ask)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert watched.watch.check(watched.context)
    assert (watched.record().state, watched.record().restarts, watched.containers()) == (
        "healthy",
        (),
        before,
    )


def within(seconds: float, ask: Callable[[], object]) -> None:
    asking = BackgroundCall(lambda: [ask()])
    assert asking.answer(seconds) is not None, "it still waits"


def test_up_fails_when_daemon_dies_then_recovers(watched: Watched, daemon: PrivateDaemon) -> None:
    """The daemon dies while `up` waits for the engine."""

    def killed(_: Release, runtime: Runtime) -> None:
        daemon.end(signal.SIGKILL)
        runtime.observe()

    plan = watched.project.plan(port=free_port(), OTHER="1")
    with pytest.raises(EnvironmentUnfitError, match="is not running") as caught:
        deploy(watched.project.context(killed), *watched.project.stored(plan))
    assert "\n" not in caught.value.message
    daemon.start()
    deploy(watched.project.context(proven), *watched.project.stored(plan))
    assert answers(plan.port)
    assert len(watched.containers()) == 1


def test_log_continues_after_daemon_restart(watched: Watched, daemon: PrivateDaemon) -> None:
    runtime, lines = watched.project.runtime(), list[str]()

    def started() -> bool:
        lines.extend(runtime.poll_lines())
        return sum(line.startswith("started as serve") for line in lines) == 1

    eventually(started)
    daemon.end(signal.SIGKILL)
    time.sleep(1)  # the reader finds nobody, more than once
    daemon.start()
    lines.clear()
    deadline = time.monotonic() + 10
    while not started():
        assert time.monotonic() < deadline, "no line came any more"
        time.sleep(0.1)
