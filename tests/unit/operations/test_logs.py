"""The lines of `logs`: of the running engine, or of its last failed start."""

from typing import cast

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.logs import failed_lines, gateway_lines, lines
from deckard_deploy.operations.options import Selection
from deckard_deploy.running.deploy import failure_log
from deckard_deploy.running.runtime import Runtime
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually


def test_logs_of_running_engine(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    selection = Selection(fake.state.root)
    assert list(lines(selection, report, follow=False, tail=1)) == ["Application startup complete."]
    assert len(list(lines(selection, report, follow=False, tail=3))) == 3
    assert list(lines(selection, report, follow=False, tail=0)) == []
    assert report.lines == []


def test_log_of_stopped_engine_says_so(fake: FakeDeployment, report: RecordingReporter) -> None:
    """`logs` after `down` printed nothing."""
    fake.stored(fake.plan())
    assert list(lines(Selection(fake.state.root), report, follow=False, tail=1)) == []
    assert report.lines == ["box is not running, and no log of its last start is kept"]


def test_followed_logs_end_with_engine(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    followed = lines(Selection(fake.state.root), report, follow=True, tail=1)
    assert next(followed) == "Application startup complete."
    fake.end()
    eventually(lambda: not fake.processes())
    assert list(followed) == []


def test_logs_of_failed_start_are_kept(fake: FakeDeployment, report: RecordingReporter) -> None:
    release, launch = fake.stored(fake.plan())
    release.record(launch.model_copy(update={"state": "failed", "reason": "the engine exited"}))
    selection = Selection(fake.state.root)
    assert list(lines(selection, report, follow=False, tail=200)) == []  # none was kept, as on a full disk
    assert report.lines == ["box is not running, and no log of its last start is kept"]
    report.lines.clear()
    (release.folder / "failure.log").write_text("the engine exited\nfirst\nlast\n")
    assert list(lines(selection, report, follow=False, tail=2)) == ["first", "last"]
    assert report.lines == [
        f"nothing is running; the log of the failed start is in {release.folder}/failure.log:"
    ]
    assert list(lines(selection, report, follow=False, tail=0)) == []


def test_log_of_failure_is_printed_while_another_release_runs(
    fake: FakeDeployment, report: RecordingReporter
) -> None:
    selection = Selection(fake.state.root)
    failed, launch = fake.stored(fake.plan(grace=6))
    failed.record(launch.model_copy(update={"state": "failed", "reason": "no kernel"}))
    fake.proven(fake.plan())
    with pytest.raises(BadInputError, match="no log of a failed start was kept"):
        list(failed_lines(selection, report, tail=5))
    (failed.folder / "failure.log").write_text("no kernel\nfirst\nlast\n")
    assert list(failed_lines(selection, report, tail=2)) == ["first", "last"]
    assert list(failed_lines(selection, report, tail=0)) == []
    assert list(lines(selection, report, follow=False, tail=1)) == ["Application startup complete."]


@pytest.mark.parametrize("state", ["stopped", "ready"])
def test_logs_of_other_launch_are_not_shown(
    fake: FakeDeployment, report: RecordingReporter, state: str
) -> None:
    release, launch = fake.stored(fake.plan())
    release.record(launch.model_copy(update={"state": state}))
    (release.folder / "failure.log").write_text("an older failure\n")
    assert list(lines(Selection(fake.state.root), report, follow=False, tail=2)) == []
    assert report.lines == ["box is not running, and no log of its last start is kept"]


def test_gateway_log_of_failed_start_is_kept(fake: FakeDeployment, report: RecordingReporter) -> None:
    release, launch = fake.stored(fake.plan())
    release.record(launch.model_copy(update={"state": "failed", "reason": "the gateway exited"}))
    selection = Selection(fake.state.root)
    assert list(gateway_lines(selection, report, tail=200)) == []

    class Ended:
        def tail(self, _: int) -> list[str]:
            return ["engine is ready"]

        def tail_gateway(self, _: int) -> list[str]:
            return ["first", "nginx: [emerg]"]

    kept = failure_log(cast("Runtime", Ended()), "the gateway exited")
    (release.folder / "failure.log").write_text(kept)
    assert list(gateway_lines(selection, report, tail=200)) == ["first", "nginx: [emerg]"]
    assert list(gateway_lines(selection, report, tail=1)) == ["nginx: [emerg]"]
    assert list(gateway_lines(selection, report, tail=0)) == []
    assert list(lines(selection, report, follow=False, tail=200))[:2] == [
        "the gateway exited",
        "engine is ready",
    ]
