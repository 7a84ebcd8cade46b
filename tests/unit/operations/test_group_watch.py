"""`watch` of replicas: which are watched, and which get requests. The front runs in tests/e2e/test_replicas.py."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, DeployError, StartFailedError
from deckard_deploy.operations import group_watch, replicas
from deckard_deploy.operations.group_watch import Pace, ReplicaWatch
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT, SilentReporter
from deckard_deploy.running import group as membership
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Releases
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually

PACE = Pace(interval_s=0.2, deadline_s=10.0)


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[list[FakeDeployment]]:
    """Yield two replicas in one state directory, of which the record of their group has one."""
    made = []
    for name in ("box-1", "box-2"):
        (tmp_path / name).mkdir()
        one = FakeDeployment(tmp_path / name)
        one.state = StateDir(tmp_path / "state")
        one.deployment = one.state.create(name)
        one.releases = Releases(one.deployment)
        made.append(one)
    membership.record(made[0].state.create("box"), 1)
    yield made
    for one in made:
        one.end()


def ready(box: FakeDeployment) -> None:
    """Prove a release of the replica, which goes on running."""
    name = box.deployment.name
    plan = box.plan().model_copy(update={"deployment": name, "container_name": f"deckard-{name}"})
    box.proven(box.startable(plan))


class Watched:
    """The watch of the group in a thread, and the error with which it ended."""

    def __init__(self, state: StateDir, report: RecordingReporter) -> None:
        self.error: DeployError | None = None
        self._selection, self._report = Selection(state.root, "box"), report
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            group_watch.run(self._selection, self._report, interval_s=0.2, deadline_s=10.0)
        except DeployError as error:
            self.error = error


def stopped(state: StateDir, watch: Watched) -> bool:
    """Stop the group, unless its watch is at work, and return True when the watch has ended by that."""
    try:
        replicas.down(Selection(state.root, "box"), SILENT)
    except DeployError:
        return False
    watch.thread.join(2.0)
    return not watch.thread.is_alive()


@pytest.mark.slow
def test_added_replica_is_watched_and_down_is_no_error(
    boxes: list[FakeDeployment], report: RecordingReporter
) -> None:
    """`up` records the larger count before the new replica was ever ready."""
    first, added = boxes
    ready(first)
    watch = Watched(first.state, report)
    eventually(lambda: any("box-1  healthy" in line for line in report.lines))
    membership.record(first.state.deployment("box"), 2)
    watch.thread.join(1.0)  # several rounds, in which it has no current release
    assert watch.thread.is_alive()
    ready(added)
    eventually(lambda: any("box-2  healthy" in line for line in report.lines))
    (killed, *_) = added.processes()
    os.kill(killed.pid, signal.SIGKILL)
    eventually(lambda: any(line.startswith("box-2  restart ") for line in report.lines))
    eventually(added.names)
    eventually(lambda: stopped(first.state, watch))
    assert watch.error is None, report.lines
    assert [each.processes() for each in boxes] == [[], []]


def test_group_that_was_never_ready_is_refused(boxes: list[FakeDeployment]) -> None:
    with pytest.raises(BadInputError, match="box was never ready"):
        group_watch.run(Selection(boxes[0].state.root, "box"), SILENT, interval_s=0.2, deadline_s=1.0)


class Failing(SilentReporter):
    """An error of this program itself, at the first line."""

    def say(self, line: str) -> None:
        raise RuntimeError(line)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ended_watch_is_replaced_after_another_start(boxes: list[FakeDeployment]) -> None:
    box = boxes[0]
    release, launch = box.stored(box.plan())
    release.record(launch.model_copy(update={"state": "ready"}))
    box.releases.switch(release)
    group = replicas.Group(box.state, "box", 1)
    ended = ReplicaWatch(group, 1, Failing(), PACE)
    ended.join()
    assert isinstance(ended.error, StartFailedError)
    assert "by an error in this program" in ended.error.message

    def is_watched_after(launch_id: str, state: str) -> bool:
        release.record(launch.model_copy(update={"launch_id": launch_id, "state": state}))
        return group_watch._needs_watch(group, 1, ended, first=False)

    assert not is_watched_after(launch.launch_id, "ready")
    assert is_watched_after("deckard-launch-2", "ready")
    assert not is_watched_after("deckard-launch-2", "stopped")
    assert not is_watched_after("deckard-launch-2", "failed")


def test_last_one_keeps_its_requests_until_it_is_certainly_dead(boxes: list[FakeDeployment]) -> None:
    group = replicas.Group(boxes[0].state, "box", 2)
    watch = ReplicaWatch(group, 1, SILENT, PACE)
    watch.join()  # it was never ready
    for number in group.numbers:
        replicas.put_in(group, number)
    watch._set_member("silent")
    assert membership.members(group.front) == {2}
    watch._set_member("answers")
    membership.take_out(group.front, 2)
    watch._set_member("silent")
    assert membership.members(group.front) == {1}
    watch._set_member("dead")
    assert membership.members(group.front) == set()
