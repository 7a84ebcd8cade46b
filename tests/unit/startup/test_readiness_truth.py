"""The truth table, some seeds of it; tests/campaigns/start_outcomes.py runs as many as one likes."""

import pytest

from tests.support.server_behaviours import BEHAVIOURS, CRASHES, NEVER
from tests.support.start_outcomes import StartOutcome, healthy, lists_the_model, ready_by, table

pytestmark = pytest.mark.slow  # real processes or servers, and their waits

REPORTED_WITHIN_S = 3.0
SEEDS = (1,)


@pytest.fixture(scope="module")
def cases() -> dict[str, list[StartOutcome]]:
    found: dict[str, list[StartOutcome]] = {behaviour.name: [] for behaviour in BEHAVIOURS}
    for one in table(SEEDS):
        found[one.behaviour.name].append(one)
    return found


def test_there_are_forty_behaviours():
    assert len({behaviour.name for behaviour in BEHAVIOURS}) == len(BEHAVIOURS) == 40


@pytest.mark.parametrize("name", [behaviour.name for behaviour in BEHAVIOURS])
def test_verdict_is_true(cases: dict[str, list[StartOutcome]], name: str):
    assert len(cases[name]) == len(SEEDS)
    for one in cases[name]:
        assert one.true, one


@pytest.mark.parametrize("name", [behaviour.name for behaviour in CRASHES])
def test_crash_is_reported_within_seconds(cases: dict[str, list[StartOutcome]], name: str):
    assert all(0 <= one.after_s <= REPORTED_WITHIN_S for one in cases[name]), cases[name]


def test_health_alone_would_be_wrong():
    """The control: /health accepts all of these, and refuses one that works."""
    wrong = [behaviour.name for behaviour in NEVER if ready_by(healthy, behaviour, 1)]
    assert len(wrong) == len(NEVER)
    (works,) = [one for one in BEHAVIOURS if one.name == "says 503 to /health, and works"]
    assert not ready_by(healthy, works, 1)


def test_model_list_alone_would_be_wrong():
    """The control for the launch's own name and for the completion."""
    believed = {
        "serves our model, from another launch",
        "hangs after the list, healthy",
        "falls silent within the answer",
        "has a dead worker, healthy",
        "has no chat template",
        "answers without text",
    }
    wrong = {one.name for one in NEVER if one.name in believed and ready_by(lists_the_model, one, 1)}
    assert wrong == believed
