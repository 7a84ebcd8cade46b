"""The watch over a real supervisor with a small server: its restarts, their bounds, and its record."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, DeploymentBusyError, StartFailedError
from deckard_deploy.running import watch
from deckard_deploy.running.deploy import DeploymentContext, deploy, take_down
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import FAILURE_LOG, Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.running.watch import PATIENCE, Canary, Restart, Watch, exclusive_watch
from deckard_deploy.system.files import remove_folder
from deckard_deploy.system.processes import boot_id
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually


class Watched:
    """A ready deployment, and a watch over it whose canary returns `says`."""

    def __init__(self, world: FakeDeployment) -> None:
        self.world = world
        self.says: Canary = Canary(answered=True, detail="")
        runtime = world.runtime()
        self.site = DeploymentContext(
            releases=world.releases, runtimes={"process": runtime}, follow=self.follow, say=lambda _: None
        )
        self.plan = world.plan()
        self.ready = deploy(self.site, *world.stored(self.plan))
        self.watch = self.made()

    def made(self) -> Watch:
        return Watch(self.world.deployment, canary=lambda _: self.says, say=lambda _: None)

    def look(self) -> bool:
        return self.watch.check(self.site)

    def follow(self, release: Release, runtime: Runtime) -> None:
        def settled() -> bool:
            if runtime.observe().state in ("exited", "restarting"):
                raise StartFailedError("the engine stopped")
            return self.world.names() is not None and release.recorded_launch().launch_id in (
                self.world.names() or []
            )

        eventually(settled)

    def kill_server(self) -> None:
        state = self.world.runtime()._state()
        assert state is not None
        assert state.server is not None
        os.kill(state.server.pid, signal.SIGKILL)
        eventually(lambda: self.world.runtime().observe().state == "exited")

    def record(self) -> watch.WatchRecord:
        found = watch.read(self.world.deployment)
        assert found is not None
        return found


@pytest.fixture
def watched(world: FakeDeployment) -> Iterator[Watched]:
    made = Watched(world)
    yield made
    made.site.runtimes["process"].close()


def test_healthy_server_is_not_restarted(watched: Watched) -> None:
    before = watched.world.runtime().observe()
    assert watched.watch.start(watched.site)
    assert [watched.look() for _ in range(5)] == [True] * 5
    assert watched.world.runtime().observe() == before
    assert (watched.record().state, watched.record().restarts) == ("healthy", ())


def test_dead_server_is_restarted_at_once(watched: Watched) -> None:
    watched.kill_server()
    assert watched.look()
    assert watched.world.names() is not None
    (restart,) = watched.record().restarts
    assert (restart.reason, restart.outcome) == ("what ran has ended with exit code 137", "ready")
    current = watched.site.releases.current()
    assert current is not None
    assert "Application startup complete." in (current.folder / FAILURE_LOG).read_text()


def test_silent_server_is_degraded_then_restarted(watched: Watched) -> None:
    before = watched.world.runtime().observe().instance_id
    watched.says = Canary(answered=False, detail="not answering")
    for _ in range(PATIENCE - 1):
        watched.look()
        assert (watched.record().state, watched.record().reason) == ("degraded", "not answering")
        assert watched.world.runtime().observe().instance_id == before
    watched.look()
    assert watched.world.runtime().observe().instance_id != before
    assert [one.reason for one in watched.record().restarts] == ["not answering"]


def test_answer_resets_the_failure_count(watched: Watched) -> None:
    for answered in (False, False, True, False, False):
        watched.says = Canary(answered=answered, detail="x")
        watched.look()
    assert watched.record().restarts == ()


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
    again = watched.made()  # a new watch knows what the old one did
    with pytest.raises(StartFailedError):
        again.check(watched.site)


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
    watched.world.deployment.watch.write_text(record.model_dump_json())
    again = watched.made()
    watched.says = Canary(answered=False, detail="engine dead", final=True)
    assert again.check(watched.site)
    assert len(watched.record().restarts) == 3


def test_failed_restart_is_tried_twice(watched: Watched) -> None:
    watched.kill_server()
    watched.world.program.write_text("#!/bin/sh\nexit 3\n")
    watched.look()
    watched.look()
    with pytest.raises(StartFailedError):
        watched.look()
    assert len(watched.record().restarts) == 2
    assert all("the engine stopped" in one.outcome for one in watched.record().restarts)


def test_watch_ends_after_down(watched: Watched) -> None:
    take_down(watched.site)
    assert watched.look() is False
    assert watched.record().restarts == ()


def test_watch_waits_while_another_verb_runs(watched: Watched) -> None:
    watched.kill_server()
    with lock_deployment(watched.world.deployment, verb="up"):
        assert watched.look()
    assert watched.record().restarts == ()
    assert watched.look()
    assert len(watched.record().restarts) == 1


def test_watch_continues_with_new_release(watched: Watched) -> None:
    other, launch = watched.world.stored(watched.world.plan(ANOTHER="plan"), "deckard-launch-other")
    seen: list[bool] = []

    def follow(release: Release, runtime: Runtime) -> None:
        seen.append(watched.look())  # the current release is stopped by now, and this `up` holds the lock
        watched.follow(release, runtime)

    with lock_deployment(watched.world.deployment, verb="up"):
        deploy(replace(watched.site, follow=follow), other, launch)
    assert seen == [True]
    assert watched.look()
    assert (watched.record().state, watched.record().restarts) == ("healthy", ())


def test_watch_waits_for_up_after_killed_up(watched: Watched) -> None:
    take_down(watched.site)
    other, launch = watched.world.stored(watched.world.plan(ANOTHER="plan"), "deckard-launch-other")
    other.record(launch)
    (other.folder.parent / "000000000000").mkdir()  # old and damaged
    (other.folder.parent / "000000000000" / "launch.json").write_text("{")
    assert watched.look()
    assert (watched.world.names(), watched.record().restarts) == (None, ())
    assert (watched.record().state, watched.record().reason) == (
        "degraded",
        "an `up` was interrupted: run it again",
    )
    take_down(watched.site)
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
    current = watched.site.releases.current()
    assert current
    current.record(current.recorded_launch().model_copy(update={"state": "failed"}))
    (current.folder / FAILURE_LOG).write_text("the cause")
    watched.site.runtimes["process"].stop()
    assert watched.look()
    assert watched.record().restarts[-1].outcome == "ready"
    assert (current.folder / FAILURE_LOG).read_text() == "the cause"


def test_interrupted_start_is_repeated(watched: Watched) -> None:
    take_down(watched.site)
    release = watched.site.releases.current()
    assert release
    release.record(release.recorded_launch().model_copy(update={"state": "starting"}))
    assert watched.look()
    assert watched.world.names() is not None
    assert [one.reason for one in watched.record().restarts] == ["its start was interrupted"]


def test_down_during_canary_is_respected(watched: Watched) -> None:
    def asked(_: Release) -> Canary:
        take_down(watched.site)
        return Canary(answered=False, detail="engine dead", final=True)

    watched.watch = Watch(watched.world.deployment, canary=asked, say=lambda _: None)
    assert watched.look()
    assert (watched.world.names(), watched.record().restarts) == (None, ())
    assert watched.look() is False


def test_failed_start_after_reboot_is_retried(watched: Watched) -> None:
    watched.world.end()
    program = watched.world.program.read_text()
    watched.world.program.write_text("#!/bin/sh\nexit 3\n")
    again = watched.made()
    assert again.start(watched.site)
    assert watched.record().state == "degraded"
    watched.world.program.write_text(program)
    assert again.check(watched.site)
    assert watched.world.names() is not None
    assert len(watched.record().restarts) == 1


def test_watch_after_reboot_waits_for_other_verb(watched: Watched) -> None:
    watched.world.end()
    again = watched.made()
    with lock_deployment(watched.world.deployment, verb="up"):
        assert again.start(watched.site) is False
    assert again.start(watched.site)
    assert watched.world.names() is not None


def test_watch_after_reboot_starts_current(watched: Watched) -> None:
    watched.world.end()  # kills everything, as a reboot does
    again = watched.made()
    assert again.start(watched.site)
    assert watched.world.names() is not None
    assert watched.record().restarts == ()


def test_watch_without_ready_release_is_refused(world: FakeDeployment) -> None:
    site = DeploymentContext(releases=world.releases, runtimes={}, follow=lambda *_: None, say=lambda _: None)
    with pytest.raises(BadInputError, match="box was never ready"):
        Watch(world.deployment, canary=lambda _: Canary(answered=True, detail=""), say=lambda _: None).start(
            site
        )


def test_second_watch_is_refused_with_owner(watched: Watched) -> None:
    deployment = watched.world.deployment
    with (
        exclusive_watch(deployment),
        pytest.raises(DeploymentBusyError, match=f"box is watched already by pid {os.getpid()}"),
        exclusive_watch(deployment),
    ):
        pytest.fail("two watch")
    with exclusive_watch(deployment):
        assert watched.look()


def test_watch_ends_after_purge(watched: Watched) -> None:
    take_down(watched.site)
    watched.world.deployment.current.unlink()
    with pytest.raises(BadInputError, match="never ready"):  # this alone is not a purge
        watched.look()
    remove_folder(watched.world.deployment.folder)
    assert not watched.look()


def test_damaged_watch_record_is_ignored(world: FakeDeployment) -> None:
    world.deployment.watch.write_text("{")
    assert watch.read(world.deployment) is None
    Path(world.deployment.watch).unlink()
    assert watch.read(world.deployment) is None
