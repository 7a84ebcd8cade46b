"""What a start and `watch` say of an engine that answers, and answers wrongly."""

from deckard_deploy.operations.damage import report_damage
from deckard_deploy.operations.deployments import select_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.watch import report_damage_of
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter


def test_engine_that_ignores_grammar_is_reported(fake: FakeDeployment, report: RecordingReporter) -> None:
    """The fake answers every question with the word "ready"."""
    plan = fake.plan()
    fake.proven(plan)
    found = report_damage(plan, fake.state, report)
    assert found == ["no document of the JSON schema that was asked for"]
    assert report.lines == [f"damage   {found[0]}"]


def test_watch_reports_damage_of_what_runs(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    report_damage_of(select_deployment(Selection(fake.state.root)), report)
    assert report.lines[-1].startswith("damage   no document")


def test_nothing_is_asked_while_nothing_runs(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.stored(fake.plan())
    report_damage_of(select_deployment(Selection(fake.state.root)), report)
    assert report.lines == []
