"""`start`: the release that `down` stopped runs again, with its settings."""

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations import down, start
from deckard_deploy.operations.deployments import DeploymentRef, running_plan
from deckard_deploy.operations.options import Selection
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually


def test_start_after_down_keeps_the_settings(fake: FakeDeployment, report: RecordingReporter) -> None:
    selection = Selection(fake.state.root)
    release = fake.proven(fake.startable(fake.plan(NUMBER="7")))
    down.run(selection, report)
    with pytest.raises(BadInputError, match="box does not run") as refused:
        running_plan(DeploymentRef(fake.state, "box"), report)
    assert refused.value.hint == "deckard-deploy start --name box"
    assert start.run(selection, report, dry_run=True) is None
    assert report.lines[-1] == f"dry run: would start plan {release.plan_hash}"
    assert fake.runtime().observe().state == "missing"
    assert start.run(selection, report) == release.plan.base_url
    assert fake.releases.current() == release
    eventually(lambda: release.recorded_launch().launch_id in (fake.names() or []))
    assert release.recorded_launch().state == "ready"


def test_start_leaves_what_runs_alone(fake: FakeDeployment, report: RecordingReporter) -> None:
    release = fake.proven(fake.startable(fake.plan()))
    before = fake.runtime().observe()
    assert start.run(Selection(fake.state.root), report) == release.plan.base_url
    assert fake.runtime().observe() == before
    assert report.lines == [f"running  plan {release.plan_hash}: nothing to do"]


def test_start_of_deployment_that_was_never_ready_is_refused(
    fake: FakeDeployment, report: RecordingReporter
) -> None:
    fake.stored(fake.plan())
    with pytest.raises(BadInputError, match="box was never ready") as refused:
        start.run(Selection(fake.state.root), report)
    assert refused.value.hint == "deckard-deploy up --profile cpu --name box"
