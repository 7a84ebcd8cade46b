"""Figures of all runs at one concurrency."""

from deckard_deploy.measuring.figures import rows
from tests.support.sample_records import record, run


def test_row_has_median_speed_and_pooled_acceptance() -> None:
    few = run(10.0, drafts=10, accepted=10)
    many = run(30.0, drafts=90, accepted=0)
    (row,) = rows(record([few, run(20.0), many]))
    assert (row.tokens_per_s.low, row.tokens_per_s.median, row.tokens_per_s.high) == (10.0, 20.0, 30.0)
    assert (row.acceptance, row.length, row.by_position) == (10 / 400, 1.1, (0.1, 0.0, 0.0, 0.0))
