"""`wait`: a running start is followed until it is ready."""

import pytest

from deckard_deploy.errors import StartFailedError
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.wait import run
from deckard_deploy.running.deploy import decide
from deckard_deploy.running.lock import lock_deployment
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter


def test_wait_returns_base_url_of_ready_start(fake: FakeDeployment, report: RecordingReporter) -> None:
    release = fake.started(fake.plan())
    assert run(Selection(fake.state.root), report) == release.plan.base_url
    assert "answer   'ready'" in report.lines
    assert report.lines[-1].startswith("ready    after ")


def test_wait_records_readiness_of_interrupted_up(fake: FakeDeployment, report: RecordingReporter) -> None:
    """Before, `watch` and `up` still reported an interrupted `up` after `wait` had proven the endpoint."""
    release = fake.started(fake.plan())
    run(Selection(fake.state.root), report)
    launch = release.recorded_launch()
    assert launch.state == "ready"
    assert fake.releases.current() == release
    seen = fake.runtime().observe()
    assert decide(release.plan_hash, seen, launch).action == "nothing"


def test_wait_leaves_the_record_to_a_verb_at_work(fake: FakeDeployment, report: RecordingReporter) -> None:
    release = fake.started(fake.plan())
    with lock_deployment(fake.deployment, verb="up"):
        run(Selection(fake.state.root), report)
    assert release.recorded_launch().state == "starting"


def test_wait_without_process_fails_with_hint(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.stored(fake.plan())
    with pytest.raises(StartFailedError, match="box is not running") as failed:
        run(Selection(fake.state.root), report)
    assert failed.value.hint == "deckard-deploy up --profile cpu --name box"
