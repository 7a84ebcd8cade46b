"""The watch over a real supervisor with a small server: what it restarts, how often, and what it writes down."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, StartFailedError
from deckard_deploy.running import watch
from deckard_deploy.running.deploy import Site, bring_up, take_down
from deckard_deploy.running.lock import held
from deckard_deploy.running.process_identity import boot_id
from deckard_deploy.running.releases import FAILURE_LOG, Launch, Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.running.watch import PATIENCE, Canary, Restart, Watch
from tests.unit.running.world import World, eventually


class Watched:
    """A deployment that is ready, and a watch over it whose canary says what a test wants."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.says: Canary = Canary(answered=True, detail="")
        self.count = 0
        runtime = world.runtime()
        self.site = Site(releases=world.releases, runtimes={"process": runtime}, follow=self.follow, say=lambda _: None)
        self.plan = world.plan()
        self.ready = bring_up(self.site, *world.stored(self.plan))
        self.watch = self.made()

    def made(self) -> Watch:
        return Watch(self.site, canary=lambda _: self.says, again=self.again)

    def again(self, _: Release) -> tuple[Release, Launch]:
        self.count += 1
        return self.world.stored(self.plan, f"deckard-launch-again-{self.count}")

    def follow(self, release: Release, runtime: Runtime) -> None:
        def settled() -> bool:
            if runtime.observe().state in ("exited", "restarting"):
                raise StartFailedError("the engine stopped")
            return self.world.names() is not None and release.recorded_launch().launch_id in (self.world.names() or [])

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
def watched(world: World) -> Iterator[Watched]:
    made = Watched(world)
    yield made
    made.site.runtimes["process"].close()


def test_a_healthy_server_is_left_alone(watched: Watched) -> None:
    before = watched.world.runtime().observe()
    watched.watch.begin()
    assert [watched.watch.look() for _ in range(5)] == [True] * 5
    assert watched.world.runtime().observe() == before
    assert (watched.record().state, watched.record().restarts) == ("healthy", ())


def test_a_dead_server_is_started_again_at_once_and_the_reason_kept(watched: Watched) -> None:
    watched.kill_server()
    assert watched.watch.look()
    assert watched.world.names() is not None
    (restart,) = watched.record().restarts
    assert (restart.reason, restart.outcome) == ("what ran has ended with exit code 137", "ready")
    current = watched.site.releases.current()
    assert current is not None
    assert "Application startup complete." in (current.folder / FAILURE_LOG).read_text()


def test_a_silent_server_is_degraded_first_and_restarted_after_some_questions(watched: Watched) -> None:
    before = watched.world.runtime().observe().instance_id
    watched.says = Canary(answered=False, detail="not answering")
    for _ in range(PATIENCE - 1):
        watched.watch.look()
        assert (watched.record().state, watched.record().reason) == ("degraded", "not answering")
        assert watched.world.runtime().observe().instance_id == before
    watched.watch.look()
    assert watched.world.runtime().observe().instance_id != before
    assert [one.reason for one in watched.record().restarts] == ["not answering"]


def test_an_answer_in_between_starts_the_count_anew(watched: Watched) -> None:
    for answered in (False, False, True, False, False):
        watched.says = Canary(answered=answered, detail="x")
        watched.watch.look()
    assert watched.record().restarts == ()


def test_a_dead_engine_is_not_asked_twice(watched: Watched) -> None:
    watched.says = Canary(answered=False, detail="engine dead", final=True)
    watched.watch.look()
    assert len(watched.record().restarts) == 1


def test_it_gives_up_after_two_restarts_an_hour(watched: Watched) -> None:
    watched.says = Canary(answered=False, detail="engine dead", final=True)
    watched.watch.look()
    watched.watch.look()
    with pytest.raises(StartFailedError, match="restarted 2 times within an hour, and again: engine dead"):
        watched.watch.look()
    assert (watched.record().state, len(watched.record().restarts)) == ("given up", 2)
    again = watched.made()  # a new watch knows what the old one did
    with pytest.raises(StartFailedError):
        again.look()


@pytest.mark.parametrize(("age_s", "boot"), [(watch.WINDOW_S + 1, None), (1.0, "another boot")])
def test_old_restarts_do_not_count(watched: Watched, age_s: float, boot: str | None) -> None:
    old = Restart(
        at="2026-01-01", reason="x", outcome="ready", boot=boot or boot_id(), monotonic_s=time.monotonic() - age_s
    )
    record = watched.record().model_copy(update={"restarts": (old, old)})
    watched.world.deployment.watch.write_text(record.model_dump_json())
    again = watched.made()
    watched.says = Canary(answered=False, detail="engine dead", final=True)
    assert again.look()
    assert len(watched.record().restarts) == 3


def test_a_start_that_fails_is_tried_twice_and_no_more(watched: Watched) -> None:
    watched.kill_server()
    watched.world.program.write_text("#!/bin/sh\nexit 3\n")
    watched.watch.look()
    watched.watch.look()
    with pytest.raises(StartFailedError):
        watched.watch.look()
    assert len(watched.record().restarts) == 2
    assert all("the engine stopped" in one.outcome for one in watched.record().restarts)


def test_down_ends_it(watched: Watched) -> None:
    take_down(watched.site)
    assert watched.watch.look() is False
    assert watched.record().restarts == ()


def test_it_keeps_out_of_the_way_of_another_verb(watched: Watched) -> None:
    watched.kill_server()
    with held(watched.world.deployment, verb="up"):
        assert watched.watch.look()
    assert watched.record().restarts == ()
    assert watched.watch.look()
    assert len(watched.record().restarts) == 1


def test_after_a_reboot_it_starts_what_was_current(watched: Watched) -> None:
    watched.world.end()  # everything is killed, as by a reboot
    again = watched.made()
    again.begin()
    assert watched.world.names() is not None
    assert watched.record().restarts == ()


def test_nothing_was_ever_ready(world: World) -> None:
    site = Site(releases=world.releases, runtimes={}, follow=lambda *_: None, say=lambda _: None)
    with pytest.raises(BadInputError, match="box was never ready"):
        Watch(
            site, canary=lambda _: Canary(answered=True, detail=""), again=lambda _: world.stored(world.plan())
        ).begin()


def test_a_damaged_record_is_no_record(world: World) -> None:
    world.deployment.watch.write_text("{")
    assert watch.read(world.deployment) is None
    Path(world.deployment.watch).unlink()
    assert watch.read(world.deployment) is None
