"""`watch`: its canary, and the start of a release that does not run."""

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.watch import CompletionCanary, run
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter


def test_canary_of_running_release_is_answered(fake: FakeDeployment) -> None:
    canary = CompletionCanary(fake.state, 10)(fake.proven(fake.plan()))
    assert (canary.answered, canary.final) == (True, False)


def test_canary_of_stopped_release_is_not_answered(fake: FakeDeployment) -> None:
    release, launch = fake.stored(fake.plan())
    release.record(launch)
    canary = CompletionCanary(fake.state, 10)(release)
    assert (canary.answered, canary.final) == (False, False)
    assert canary.detail.startswith("loading: ")


def test_no_restart_for_another_server(fake: FakeDeployment) -> None:
    fake.proven(fake.plan())
    other, launch = fake.stored(fake.plan(NUMBER="2"), "deckard-launch-2")
    other.record(launch)
    canary = CompletionCanary(fake.state, 10)(other)
    assert (canary.answered, canary.final, canary.restart_helps) == (False, False, False)
    assert canary.detail.startswith("other server: ")


def test_watch_without_current_release_fails(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.stored(fake.plan())
    with pytest.raises(BadInputError):
        run(Selection(fake.state.root), report, interval_s=1, deadline_s=1)
