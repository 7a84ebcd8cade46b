"""The watch over a real supervisor with a small server: its restarts, their bounds, and its record."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.errors import (
    BadInputError,
    DeploymentBusyError,
    EnvironmentUnfitError,
    StartFailedError,
)
from deckard_deploy.running import watch
from deckard_deploy.running.deploy import DeploymentContext, deploy, take_down
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.process.runtime import ProcessRuntime
from deckard_deploy.running.releases import FAILURE_LOG, Release
from deckard_deploy.running.runtime import Observation, Runtime
from deckard_deploy.running.watch import PATIENCE, Canary, Restart, Watch, exclusive_watch
from deckard_deploy.system.files import remove_folder
from deckard_deploy.system.processes import boot_id
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow  # real processes or servers, and their waits


class Watched:
    """A ready deployment, and a watch over it whose canary returns `says`."""

    def __init__(self, fake: FakeDeployment) -> None:
        self.fake = fake
        self.says: Canary = Canary(answered=True, detail="")
        runtime = fake.runtime()
        self.context = DeploymentContext(
            releases=fake.releases, runtimes={"process": runtime}, follow=self.follow, say=lambda _: None
        )
        self.plan = fake.plan()
        self.ready = deploy(self.context, *fake.stored(self.plan))
        self.watch = self.new_watch()

    def new_watch(self, daemon_ended: Callable[[DeploymentContext], bool] = lambda _: False) -> Watch:
        return Watch(
            self.fake.deployment, canary=lambda _: self.says, say=lambda _: None, daemon_ended=daemon_ended
        )

    def look(self) -> bool:
        return self.watch.check(self.context)

    def follow(self, release: Release, runtime: Runtime) -> None:
        def settled() -> bool:
            if runtime.observe().state in ("exited", "restarting"):
                raise StartFailedError("the engine stopped")
            return self.fake.names() is not None and release.recorded_launch().launch_id in (
                self.fake.names() or []
            )

        eventually(settled)

    def kill_server(self) -> None:
        state = self.fake.runtime()._state()
        assert state is not None
        assert state.server is not None
        os.kill(state.server.pid, signal.SIGKILL)
        eventually(lambda: self.fake.runtime().observe().state == "exited")

    def record(self) -> watch.WatchRecord:
        found = watch.read(self.fake.deployment)
        assert found is not None
        return found


class GatewayGone:
    """The process runtime with a gateway that has ended, until it is started again."""

    def __init__(self, runtime: ProcessRuntime, *, stays: bool = False) -> None:
        self._runtime, self._stays, self.started = runtime, stays, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)

    def observe(self) -> Observation:
        gone = self._stays or not self.started
        return replace(self._runtime.observe(), gateway="exited" if gone else "running")

    def start_gateway(self, _: Release) -> None:
        self.started += 1

    def tail_gateway(self, _: int) -> list[str]:
        return ["nginx: [emerg]"]


@pytest.fixture
def watched(fake: FakeDeployment) -> Iterator[Watched]:
    watched = Watched(fake)
    yield watched
    watched.context.runtimes["process"].close()


def test_healthy_server_is_not_restarted(watched: Watched) -> None:
    before = watched.fake.runtime().observe()
    assert watched.watch.start(watched.context)
    assert [watched.look() for _ in range(5)] == [True] * 5
    assert watched.fake.runtime().observe() == before
    assert (watched.record().state, watched.record().restarts) == ("healthy", ())


def test_dead_server_is_restarted_at_once(watched: Watched) -> None:
    watched.kill_server()
    assert watched.look()
    assert watched.fake.names() is not None
    (restart,) = watched.record().restarts
    assert (restart.reason, restart.outcome) == ("what ran has ended with exit code 137", "ready")
    current = watched.context.releases.current()
    assert current is not None
    assert "Application startup complete." in (current.folder / FAILURE_LOG).read_text()


def test_silent_server_is_degraded_then_restarted(watched: Watched) -> None:
    before = watched.fake.runtime().observe().instance_id
    watched.says = Canary(answered=False, detail="not answering")
    for _ in range(PATIENCE - 1):
        watched.look()
        assert (watched.record().state, watched.record().reason) == ("degraded", "not answering")
        assert watched.fake.runtime().observe().instance_id == before
    watched.look()
    assert watched.fake.runtime().observe().instance_id != before
    assert [one.reason for one in watched.record().restarts] == ["not answering"]


def test_old_failures_are_forgotten(watched: Watched) -> None:
    for answered in (False, False, True, True, True, True, False, False):
        watched.says = Canary(answered=answered, detail="x")
        watched.look()
    assert watched.record().restarts == ()


def test_answers_in_between_do_not_hide_a_hang(watched: Watched) -> None:
    """One of two ranks hangs: every other question is answered."""
    for answered in (False, True, False, True):
        watched.says = Canary(answered=answered, detail="x")
        watched.look()
        assert watched.record().restarts == ()
    watched.says = Canary(answered=False, detail="x")
    watched.look()
    assert [one.reason for one in watched.record().restarts] == ["x"]


def test_failure_that_no_restart_mends_restarts_nothing(watched: Watched) -> None:
    before = watched.fake.runtime().observe()
    watched.says = Canary(answered=False, detail="key refused", final=True, cure="none")
    assert [watched.look() for _ in range(2 * PATIENCE)] == [True] * 2 * PATIENCE
    assert watched.fake.runtime().observe() == before
    assert (watched.record().state, watched.record().reason) == ("degraded", "key refused")


def test_engine_is_stopped_before_memory_is_gone(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deckard_deploy.running.watch.DRAIN_S", 0.0)
    watched.says = Canary(answered=False, detail="100 MiB", final=True, cure="stop")
    with pytest.raises(StartFailedError, match="the engine is stopped: 100 MiB"):
        watched.look()
    release = watched.context.releases.current()
    assert release
    assert (watched.fake.processes(), watched.record().state) == ([], "given up")
    assert (release.recorded_launch().state, release.recorded_launch().reason) == ("failed", "100 MiB")
    assert (release.folder / FAILURE_LOG).read_text().startswith("100 MiB\n")
    assert watched.record().restarts == ()


def test_restarts_of_the_daemon_are_not_counted(watched: Watched) -> None:
    """One crash and any number of daemon restarts: the second crash is restarted as well, the third is not."""
    ended = [False]
    watched.watch = Watched.new_watch(watched, lambda _: ended[0])
    for by_daemon in (False, True, True, True, False):
        ended[0] = by_daemon
        watched.kill_server()
        assert watched.look()
        assert watched.fake.names() is not None
    assert [one.counted for one in watched.record().restarts] == [True, False, False, False, True]
    assert (
        watched.record().restarts[1].reason.startswith("the docker daemon was restarted; what ran has ended")
    )
    watched.kill_server()
    with pytest.raises(StartFailedError, match="restarted 2 times"):
        watched.look()


def test_daemon_that_goes_during_a_restart_is_not_counted(watched: Watched) -> None:
    ended = [False]
    watched.watch = Watched.new_watch(watched, lambda _: ended[0])
    watched.kill_server()

    def follow(*_: object) -> None:
        ended[0] = True
        raise EnvironmentUnfitError("the docker daemon is not running")

    watched.context = replace(watched.context, follow=follow)
    assert watched.look()
    assert [one.counted for one in watched.record().restarts] == [False]


def test_restart_by_the_runtime_is_followed(watched: Watched) -> None:
    """docker or the supervisor has restarted it: that is counted, and the engine is not stopped once more."""
    release = watched.context.releases.current()
    assert release
    launch = release.recorded_launch()
    release.record(launch.model_copy(update={"restart_count": -1}))
    before = watched.fake.runtime().observe()
    assert watched.look()
    assert watched.fake.runtime().observe() == before
    assert release.recorded_launch().restart_count == 0
    assert [one.outcome for one in watched.record().restarts] == ["ready"]


def test_running_engine_recorded_as_failed_is_kept_if_it_answers(watched: Watched) -> None:
    """As after an `up` whose docker daemon went while it waited, with live-restore."""
    release = watched.context.releases.current()
    assert release
    release.record(release.recorded_launch().model_copy(update={"state": "failed"}))
    before = watched.fake.runtime().observe()
    assert watched.look()
    assert watched.fake.runtime().observe() == before
    assert release.recorded_launch().state == "ready"


def test_dead_gateway_does_not_touch_the_engine(watched: Watched) -> None:
    runtime: Any = GatewayGone(watched.fake.runtime())
    watched.context = replace(watched.context, runtimes={"process": runtime})
    before = watched.fake.runtime().observe()
    assert watched.look()
    assert runtime.started == 1
    assert watched.fake.runtime().observe() == before
    assert watched.record().restarts == ()
    assert watched.look()
    assert watched.record().state == "healthy"


def test_gateway_that_stays_down_does_not_touch_the_engine(watched: Watched, monkeypatch) -> None:
    monkeypatch.setattr("deckard_deploy.running.deploy.GATEWAY_TIMEOUT_S", 0.0)
    runtime: Any = GatewayGone(watched.fake.runtime(), stays=True)
    watched.context = replace(watched.context, runtimes={"process": runtime})
    before = watched.fake.runtime().observe()
    for _ in range(PATIENCE + 1):
        assert watched.look()
    assert watched.fake.runtime().observe() == before
    assert (watched.record().state, watched.record().restarts) == ("degraded", ())
    assert watched.record().reason == "the gateway does not start: nginx: [emerg]; the engine still runs"


def test_final_failure_restarts_at_once(watched: Watched) -> None:
    watched.says = Canary(answered=False, detail="engine dead", final=True)
    watched.look()
    assert len(watched.record().restarts) == 1


def test_watch_gives_up_after_two_restarts_an_hour(watched: Watched) -> None:
    watched.says = Canary(answered=False, detail="engine dead", final=True)
    watched.look()
    watched.look()
    with pytest.raises(StartFailedError, match="restarted 2 times within an hour, and again: engine dead"):
        watched.look()
    assert (watched.record().state, len(watched.record().restarts)) == ("given up", 2)
    again = watched.new_watch()  # a new watch knows what the old one did
    with pytest.raises(StartFailedError):
        again.check(watched.context)


@pytest.mark.parametrize(("age_s", "boot"), [(watch.WINDOW_S + 1, None), (1.0, "another boot")])
def test_old_restarts_do_not_count(watched: Watched, age_s: float, boot: str | None) -> None:
    old = Restart(
        at="2026-01-01",
        reason="x",
        outcome="ready",
        boot=boot or boot_id(),
        monotonic_s=time.monotonic() - age_s,
    )
    record = watched.record().model_copy(update={"restarts": (old, old)})
    watched.fake.deployment.watch.write_text(record.model_dump_json())
    again = watched.new_watch()
    watched.says = Canary(answered=False, detail="engine dead", final=True)
    assert again.check(watched.context)
    assert len(watched.record().restarts) == 3


def test_failed_restart_is_tried_twice(watched: Watched) -> None:
    watched.kill_server()
    watched.fake.program.write_text("#!/bin/sh\nexit 3\n")
    watched.look()
    watched.look()
    with pytest.raises(StartFailedError):
        watched.look()
    assert len(watched.record().restarts) == 2
    assert all("the engine stopped" in one.outcome for one in watched.record().restarts)


def test_watch_ends_after_down(watched: Watched) -> None:
    take_down(watched.context)
    assert watched.look() is False
    assert watched.record().restarts == ()


def test_watch_waits_while_another_verb_runs(watched: Watched) -> None:
    watched.kill_server()
    with lock_deployment(watched.fake.deployment, verb="up"):
        assert watched.look()
    assert watched.record().restarts == ()
    assert watched.look()
    assert len(watched.record().restarts) == 1


def test_watch_continues_with_new_release(watched: Watched) -> None:
    other, launch = watched.fake.stored(watched.fake.plan(ANOTHER="plan"), "deckard-launch-other")
    seen: list[bool] = []

    def follow(release: Release, runtime: Runtime) -> None:
        seen.append(watched.look())  # the current release is stopped by now, and this `up` holds the lock
        watched.follow(release, runtime)

    with lock_deployment(watched.fake.deployment, verb="up"):
        deploy(replace(watched.context, follow=follow), other, launch)
    assert seen == [True]
    assert watched.look()
    assert (watched.record().state, watched.record().restarts) == ("healthy", ())


def test_watch_waits_for_up_after_killed_up(watched: Watched) -> None:
    take_down(watched.context)
    other, launch = watched.fake.stored(watched.fake.plan(ANOTHER="plan"), "deckard-launch-other")
    other.record(launch)
    (other.folder.parent / "000000000000").mkdir()  # old and damaged
    (other.folder.parent / "000000000000" / "launch.json").write_text("{")
    assert watched.look()
    assert (watched.fake.names(), watched.record().restarts) == (None, ())
    assert (watched.record().state, watched.record().reason) == (
        "degraded",
        "an `up` was interrupted: run it again",
    )
    take_down(watched.context)
    assert watched.look() is False


def test_used_port_counts_as_failed_restart(watched: Watched) -> None:
    watched.kill_server()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", watched.plan.port))
        stranger.listen()
        for count in (1, 2):
            assert watched.look()
            assert len(watched.record().restarts) == count
    with pytest.raises(StartFailedError, match="restarted 2 times"):
        watched.look()


def test_restart_keeps_earlier_failure_log(watched: Watched) -> None:
    current = watched.context.releases.current()
    assert current
    current.record(current.recorded_launch().model_copy(update={"state": "failed"}))
    (current.folder / FAILURE_LOG).write_text("the cause")
    watched.context.runtimes["process"].stop()
    assert watched.look()
    assert watched.record().restarts[-1].outcome == "ready"
    assert (current.folder / FAILURE_LOG).read_text() == "the cause"


def test_interrupted_start_is_repeated(watched: Watched) -> None:
    take_down(watched.context)
    release = watched.context.releases.current()
    assert release
    release.record(release.recorded_launch().model_copy(update={"state": "starting"}))
    assert watched.look()
    assert watched.fake.names() is not None
    assert [one.reason for one in watched.record().restarts] == ["its start was interrupted"]


def test_down_during_canary_is_respected(watched: Watched) -> None:
    def asked(_: Release) -> Canary:
        take_down(watched.context)
        return Canary(answered=False, detail="engine dead", final=True)

    watched.watch = Watch(watched.fake.deployment, canary=asked, say=lambda _: None)
    assert watched.look()
    assert (watched.fake.names(), watched.record().restarts) == (None, ())
    assert watched.look() is False


def test_failed_start_after_reboot_is_retried(watched: Watched) -> None:
    watched.fake.end()
    program = watched.fake.program.read_text()
    watched.fake.program.write_text("#!/bin/sh\nexit 3\n")
    again = watched.new_watch()
    assert again.start(watched.context)
    assert watched.record().state == "degraded"
    watched.fake.program.write_text(program)
    assert again.check(watched.context)
    assert watched.fake.names() is not None
    assert len(watched.record().restarts) == 1


def test_watch_after_reboot_waits_for_other_verb(watched: Watched) -> None:
    watched.fake.end()
    again = watched.new_watch()
    with lock_deployment(watched.fake.deployment, verb="up"):
        assert again.start(watched.context) is False
    assert again.start(watched.context)
    assert watched.fake.names() is not None


def test_watch_after_reboot_starts_current(watched: Watched) -> None:
    watched.fake.end()  # kills everything, as a reboot does
    again = watched.new_watch()
    assert again.start(watched.context)
    assert watched.fake.names() is not None
    assert watched.record().restarts == ()


def test_watch_without_ready_release_is_refused(fake: FakeDeployment) -> None:
    context = DeploymentContext(
        releases=fake.releases, runtimes={}, follow=lambda *_: None, say=lambda _: None
    )
    with pytest.raises(BadInputError, match="box was never ready"):
        Watch(fake.deployment, canary=lambda _: Canary(answered=True, detail=""), say=lambda _: None).start(
            context
        )


def test_second_watch_is_refused_with_owner(watched: Watched) -> None:
    deployment = watched.fake.deployment
    with (
        exclusive_watch(deployment),
        pytest.raises(DeploymentBusyError, match=f"box is watched already by pid {os.getpid()}"),
        exclusive_watch(deployment),
    ):
        pytest.fail("two watch")
    with exclusive_watch(deployment):
        assert watched.look()


def test_watch_ends_after_purge(watched: Watched) -> None:
    take_down(watched.context)
    watched.fake.deployment.current.unlink()
    with pytest.raises(BadInputError, match="never ready"):  # this alone is not a purge
        watched.look()
    remove_folder(watched.fake.deployment.folder)
    assert not watched.look()


def test_damaged_watch_record_is_ignored(fake: FakeDeployment) -> None:
    fake.deployment.watch.write_text("{")
    assert watch.read(fake.deployment) is None
    Path(fake.deployment.watch).unlink()
    assert watch.read(fake.deployment) is None
