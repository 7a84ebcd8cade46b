"""Starts that are followed until they are ready, or fail."""

import pytest

from deckard_deploy.operations.readiness import _still_answers
from deckard_deploy.startup.readiness import Outcome, Readiness

DEAD, READY = Readiness(Outcome.ENGINE_DEAD), Readiness(Outcome.READY)
BUSY = Readiness(Outcome.NOT_ANSWERING, timed_out=True)


@pytest.mark.parametrize(
    ("answers", "alive"),
    [([READY], True), ([DEAD, DEAD, DEAD], False), ([DEAD, READY], True), ([BUSY], True)],
)
def test_dead_engine_is_told_from_busy_one(answers: list[Readiness], *, alive: bool) -> None:
    coming = iter(answers)
    assert _still_answers(lambda: next(coming)) is alive
