"""`up`: the decision for what runs, and the report of a dry run."""

import pytest

from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.release import create_release
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.up import decide_for, explain
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import Decision
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter


def decision(fake: FakeDeployment, plan: LaunchPlan) -> Decision:
    with open_deployment(fake.state, "box", SILENT, also="process") as context:
        return decide_for(context, plan, fake.state)


def test_first_deployment_is_started(fake: FakeDeployment) -> None:
    assert decision(fake, fake.plan()) == Decision("start", "nothing runs")


def test_answering_release_is_left_alone(fake: FakeDeployment) -> None:
    release = fake.proven(fake.plan())
    found = decision(fake, release.plan())
    assert found.action == "nothing"
    assert found.cause.endswith(", and answers")


def test_unproven_start_is_followed(fake: FakeDeployment) -> None:
    assert decision(fake, fake.started(fake.plan()).plan()).action == "follow"


def test_other_plan_replaces_release(fake: FakeDeployment) -> None:
    fake.proven(fake.plan())
    assert decision(fake, fake.plan(NUMBER="2")).action == "replace"


def test_release_of_other_launch_is_replaced(fake: FakeDeployment) -> None:
    release = fake.proven(fake.plan())
    other, launch = create_release(release.plan(), fake.releases)
    other.record(launch)
    assert decision(fake, release.plan()).action == "replace"


@pytest.mark.parametrize("current", [False, True])
def test_explain_names_changes_and_starts_nothing(
    fake: FakeDeployment, report: RecordingReporter, *, current: bool
) -> None:
    if current:
        fake.releases.switch(fake.stored(fake.plan())[0])
    plan = fake.plan(NUMBER="2")
    explain(plan, fake.state, report)
    assert report.lines[0] == "would    start: nothing runs"
    assert any("NUMBER" in line for line in report.lines) is current
    assert fake.processes() == []
