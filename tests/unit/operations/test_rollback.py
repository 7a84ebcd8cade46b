"""`rollback`: the previous release runs again."""

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.rollback import run
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually


def test_rollback_without_previous_release_fails(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.releases.switch(fake.stored(fake.plan())[0])
    with pytest.raises(BadInputError, match="no release before the current one"):
        run(Selection(fake.state.root), report)


def test_rollback_starts_previous_release(fake: FakeDeployment, report: RecordingReporter) -> None:
    old, new = (fake.startable(fake.plan(NUMBER=number)) for number in ("1", "2"))
    previous = fake.proven(old)
    fake.runtime().stop()
    current = fake.proven(new, "deckard-launch-2")
    selection = Selection(fake.state.root)
    assert run(selection, report, dry_run=True) is None
    head = f"{current.plan_hash} -> {previous.plan_hash}"
    assert report.lines[0] == f"would    {head}"
    assert "NUMBER" in report.lines[1]
    assert fake.releases.current() == current
    assert run(selection, report) == old.base_url
    assert f"rollback {head}" in report.lines
    assert fake.releases.current() == previous
    assert fake.releases.previous() == current
    launch = previous.recorded_launch()
    assert launch.state == "ready"
    eventually(lambda: launch.launch_id in (fake.names() or []))
