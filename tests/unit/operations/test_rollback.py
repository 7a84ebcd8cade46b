"""`rollback`: the previous release runs again."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.rollback import run
from deckard_deploy.planning.plan import BindMount
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


def test_rollback_looks_before_it_stops(
    fake: FakeDeployment, report: RecordingReporter, tmp_path: Path
) -> None:
    """The weights of the previous release are gone: what runs is left alone."""
    gone = BindMount(source=str(tmp_path / "gone"), target="/models/tiny")
    old = fake.startable(fake.plan(NUMBER="1")).model_copy(update={"mounts": (gone,)})
    fake.releases.switch(fake.proven(old))
    fake.runtime().stop()
    fake.proven(fake.startable(fake.plan(NUMBER="2")), "deckard-launch-2")
    before = fake.runtime().observe()
    for dry_run in (True, False):
        with pytest.raises(EnvironmentUnfitError, match=r"gone does not exist, .* nothing was stopped"):
            run(Selection(fake.state.root), report, dry_run=dry_run)
    assert fake.runtime().observe() == before
    assert not (tmp_path / "gone").exists()


def test_rollback_starts_the_files_of_an_earlier_version(
    fake: FakeDeployment, report: RecordingReporter
) -> None:
    """Nothing is rendered anew: a plan of an earlier version may not be renderable by this one."""
    previous = fake.proven(fake.startable(fake.plan(NUMBER="1")))
    (previous.folder / "command.txt").write_text("of an earlier version")
    fake.runtime().stop()
    fake.proven(fake.startable(fake.plan(NUMBER="2")), "deckard-launch-2")
    run(Selection(fake.state.root), report)
    assert (previous.folder / "command.txt").read_text() == "of an earlier version"
    assert fake.releases.current() == previous
