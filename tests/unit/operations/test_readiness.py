"""Starts that are followed until they are ready, or fail."""

import pytest

from deckard_deploy.errors import StartFailedError
from deckard_deploy.operations.readiness import _still_answers, probe, wait_until_ready
from deckard_deploy.startup import history
from deckard_deploy.startup.readiness import Outcome, Readiness
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter

pytestmark = pytest.mark.slow  # real processes or servers, and their waits

DEAD, READY = Readiness(Outcome.ENGINE_DEAD), Readiness(Outcome.READY)
BUSY = Readiness(Outcome.NOT_ANSWERING, timed_out=True)


@pytest.mark.parametrize(
    ("answers", "alive"),
    [([READY], True), ([DEAD, DEAD, DEAD], False), ([DEAD, READY], True), ([BUSY], True)],
)
def test_dead_engine_is_told_from_busy_one(answers: list[Readiness], *, alive: bool) -> None:
    coming = iter(answers)
    assert _still_answers(lambda: next(coming)) is alive


def test_ready_start_is_reported_and_recorded(fake: FakeDeployment, report: RecordingReporter) -> None:
    release = fake.started(fake.plan())
    wait_until_ready(release, fake.runtime(), directory=fake.state, report=report)
    answer, damage, ready = report.lines
    assert answer == "answer   'ready'"
    assert damage.startswith("damage   no document")  # the fake says "ready" to every question
    assert ready.startswith("ready    after 0:")
    (start,) = history.starts_like(fake.state.startups, profile="cpu", model="tiny", engine="vllm-0.19.1-cpu")
    assert start.memory is None
    assert probe(release, directory=fake.state).outcome is Outcome.READY


def test_start_that_began_long_ago_is_not_recorded(fake: FakeDeployment, report: RecordingReporter) -> None:
    release = fake.started(fake.plan())
    launch = release.recorded_launch()
    release.record(launch.model_copy(update={"started_at": "2026-01-01T00:00:00+00:00"}))
    wait_until_ready(release, fake.runtime(), directory=fake.state, report=report)
    assert not fake.state.startups.exists()


def test_crashed_start_fails_with_its_log(fake: FakeDeployment, report: RecordingReporter) -> None:
    release = fake.started(fake.plan(FAKE_MODE="crash"))
    with pytest.raises(StartFailedError, match="it is made to fail"):
        wait_until_ready(release, fake.runtime(), directory=fake.state, report=report)
    assert not fake.state.startups.exists()
