"""Honest statistics: the same server twice is no news, one slowed by a tenth is; samples drawn from real runs."""

import json
from pathlib import Path
from random import Random

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring.baselines import baselines
from deckard_deploy.measuring.comparing import Comparison, _student, compare

# Tokens per second of runs one after the other against the CPU rehearsal: 4 at once, 8 requests of 64 tokens.
RECORDED: list[float] = json.loads((Path(__file__).parent / "recorded" / "speeds-0.19.1.json").read_text())
CONCURRENCIES = (1, 2, 4, 8, 16)
TRIALS = 100


def sampled(dice: Random, *, slowed: float = 1.0, runs: int = 5) -> dict[int, list[float]]:
    """A sweep of a server whose runs are spread as the recorded ones were."""
    return {number: [slowed * number * speed for speed in dice.choices(RECORDED, k=runs)] for number in CONCURRENCIES}


def trials(slowed: float, runs: int) -> list[Comparison]:
    dice = Random(20261125)  # noqa: S311  samples
    return [
        compare(sampled(dice, runs=runs), sampled(dice, slowed=slowed, runs=runs), seed=trial)
        for trial in range(TRIALS)
    ]


@pytest.mark.parametrize("runs", [3, 5])
def test_the_same_server_twice_is_no_difference(runs: int) -> None:
    found = trials(1.0, runs)
    assert sum(each.overall.verdict == "no difference seen" for each in found) >= 95
    rows = [{ratio.verdict for ratio in each.rows.values()} for each in found]
    assert rows.count({"no difference seen"}) >= 95


def test_a_tenth_slower_is_found_and_the_interval_holds_the_truth() -> None:
    # The recorded runs are spread by 12 %: five of them find a tenth in two of three trials, twelve do.
    found = [each.overall for each in trials(0.9, runs=12)]
    assert sum(ratio.verdict == "slower" for ratio in found) >= 95
    assert sum(ratio.low <= 0.9 <= ratio.high for ratio in found) >= 95


def test_a_naive_interval_would_not_pass() -> None:
    """The control: without widening, five runs look surer than they are."""
    dice = Random(3)  # noqa: S311  samples
    wrong = 0
    for _ in range(1000):
        old, new = (dice.choices(RECORDED, k=3) for _ in range(2))
        means = sorted(sum(dice.choices(new, k=3)) / sum(dice.choices(old, k=3)) for _ in range(200))
        wrong += not means[4] <= 1 <= means[-5]
    assert wrong > 70  # of 1000: more than the one in twenty that it promises


# https://en.wikipedia.org/wiki/Student%27s_t-distribution#Table_of_selected_values
@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"), [(0.95, 4, 2.776), (0.95, 8, 2.306), (0.99, 4, 4.604), (0.99, 40, 2.704)]
)
def test_quantiles_are_those_of_the_table(confidence: float, degrees: int, quantile: float) -> None:
    assert _student(confidence, degrees) == pytest.approx(quantile, rel=0.02)


def test_the_same_records_give_the_same_interval() -> None:
    old, new = (sampled(Random(seed)) for seed in (4, 5))  # noqa: S311  samples
    assert compare(old, new) == compare(old, new)


def test_a_published_figure_is_taken_as_exact() -> None:
    found = compare(baselines()["seed"].speeds, {1: [11.0, 11.1, 10.9], 4: [43.0, 43.1, 43.2]})
    assert set(found.rows) == {1, 4}
    assert found.rows[1].verdict == "faster"
    assert found.rows[1].ratio == pytest.approx(11 / 7.6, rel=0.01)


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(BadInputError, match="share no concurrency: 1 and 2"):
        compare({1: [1.0]}, {2: [1.0]})
    with pytest.raises(BadInputError, match="nothing was measured twice"):
        compare({1: [1.0]}, {1: [1.0]})


def test_every_published_table_says_where_it_is_from() -> None:
    found = baselines()
    assert {"seed", "author-plain", "author-dflash", "nvidia-nvfp4"} == set(found)
    assert all(len(table.source) > 10 and len(table.method) > 10 for table in found.values())
