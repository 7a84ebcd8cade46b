"""`watch`: its canary, and the start of a release that does not run."""

import time

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.host_guard import MemoryGuard
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.watch import CompletionCanary, run
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter

pytestmark = pytest.mark.slow  # real processes or servers, and their waits


def canary_of(fake: FakeDeployment, deadline_s: float, available: int = 100 << 30) -> CompletionCanary:
    guard = MemoryGuard(SILENT, lambda: available)
    return CompletionCanary(fake.state, deadline_s, guard, SILENT)


def test_canary_of_running_release_is_answered(fake: FakeDeployment) -> None:
    canary = canary_of(fake, 10)(fake.proven(fake.plan()))
    assert (canary.answered, canary.final) == (True, False)


def test_canary_of_stopped_release_is_not_answered(fake: FakeDeployment) -> None:
    release, launch = fake.stored(fake.plan())
    release.record(launch)
    canary = canary_of(fake, 10)(release)
    assert (canary.answered, canary.final) == (False, False)
    assert canary.detail.startswith("loading: ")


def test_no_restart_for_another_server(fake: FakeDeployment) -> None:
    fake.proven(fake.plan())
    other, launch = fake.stored(fake.plan(NUMBER="2"), "deckard-launch-2")
    other.record(launch)
    canary = canary_of(fake, 10)(other)
    assert (canary.answered, canary.final, canary.cure) == (False, False, "none")
    assert canary.detail.startswith("other server: ")


@pytest.mark.parametrize(("hung", "answered"), [("none", True), ("1", False)])
def test_each_data_parallel_rank_is_asked(fake: FakeDeployment, hung: str, answered: bool) -> None:  # noqa: FBT001
    """The other rank goes on answering while one hangs."""
    plan = fake.plan(FAKE_HUNG_RANK="" if hung == "none" else hung)
    plan = plan.model_copy(update={"arguments": (*plan.arguments, "--data-parallel-size", "2")})
    canary = canary_of(fake, 2)(fake.proven(plan))
    assert (canary.answered, canary.final, canary.cure) == (answered, False, "restart")
    assert canary.detail.startswith("" if answered else "rank 1 of 2 is not answering: ")


def test_watch_without_current_release_fails(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.stored(fake.plan())
    with pytest.raises(BadInputError):
        run(Selection(fake.state.root), report, interval_s=1, deadline_s=1)


@pytest.mark.parametrize(
    ("profile", "available", "cure"),
    [("spark", 100 << 20, "stop"), ("spark", 600 << 20, "restart"), ("cpu", 100 << 20, "restart")],
)
def test_memory_below_the_floor_ends_the_wait(
    fake: FakeDeployment, profile: str, available: int, cure: str
) -> None:
    """On unified memory, while the engine does not answer for minutes."""
    plan = fake.plan(FAKE_HUNG_RANK="1").model_copy(update={"profile": profile})
    plan = plan.model_copy(update={"arguments": (*plan.arguments, "--data-parallel-size", "2")})
    release = fake.proven(plan)
    began = time.monotonic()
    asks = canary_of(fake, 100 if cure == "stop" else 2, available)
    canary = asks(release)
    assert (canary.answered, canary.cure) == (False, cure)
    assert bool(asks.shortage()) is (cure == "stop")  # between two rounds, too
    assert time.monotonic() - began < 50
    if cure == "stop":
        assert canary.detail.startswith("100 MiB of memory are available, and below 512 MiB")
