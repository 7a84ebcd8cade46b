"""Honest statistics: the same server twice is no news, one slowed by a tenth is; samples drawn from real runs."""

import json
from pathlib import Path
from random import Random

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring.baselines import baselines
from deckard_deploy.measuring.comparison import Comparison, _student, compare, compare_pairs
from deckard_deploy.measuring.sweep import enough
from deckard_deploy.measuring.workload import Settings

# Tokens per second of runs one after the other against the CPU rehearsal: 4 at once, 8 requests of 64 tokens.
RECORDED: list[float] = json.loads((Path(__file__).parent / "recorded" / "speeds-0.19.1.json").read_text())
CONCURRENCIES = (1, 2, 4, 8, 16)
TRIALS = 100


DEFAULT = Settings(most_runs=15)  # as `bench` asks for


def sampled(dice: Random, settings: Settings, slowed: float = 1.0) -> dict[int, list[float]]:
    """A sweep of a server whose runs are spread as the recorded ones were."""
    found: dict[int, list[float]] = {number: [] for number in CONCURRENCIES}
    for number, speeds in found.items():
        while not enough(speeds, settings):
            speeds.append(slowed * number * dice.choice(RECORDED))
    return found


def trials(slowed: float, settings: Settings = DEFAULT) -> list[Comparison]:
    dice = Random(20261126)
    return [
        compare(sampled(dice, settings), sampled(dice, settings, slowed), seed=trial)
        for trial in range(TRIALS)
    ]


def verdicts(found: list[Comparison], wanted: str) -> int:
    return sum(each.overall.verdict == wanted for each in found)


def test_the_same_server_twice_is_no_difference() -> None:
    found = trials(1.0)
    assert verdicts(found, "no difference seen") >= 95
    rows = [{ratio.verdict for ratio in each.rows.values()} for each in found]
    assert rows.count({"no difference seen"}) >= 95


def test_a_tenth_slower_is_found_and_the_interval_holds_the_truth() -> None:
    found = trials(0.9)
    assert verdicts(found, "slower") >= 95
    assert sum(each.overall.low <= 0.9 <= each.overall.high for each in found) >= 95
    # The control: on a machine as noisy, five runs and no more find it in two of three trials.
    assert verdicts(trials(0.9, Settings()), "slower") < 80


def in_turn(dice: Random, slowed: float) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Five runs of each: what else the machine does lasts for longer than both runs of a pair, but for 2 %."""
    machine = [dice.choice(RECORDED) for _ in range(5)]
    old, new = ([factor * speed * dice.gauss(1, 0.02) for speed in machine] for factor in (1.0, slowed))
    return {4: old}, {4: new}


def test_pairs_stand_what_the_machine_does_for_a_while() -> None:
    dice = Random(7)
    same = [in_turn(dice, 1.0) for _ in range(TRIALS)]
    slower = [in_turn(dice, 0.9) for _ in range(TRIALS)]
    assert verdicts([compare_pairs(*both) for both in same], "no difference seen") >= 95
    assert verdicts([compare_pairs(*both) for both in slower], "slower") >= 95
    # The control: the same runs, taken as if they had been made one sweep after the other.
    assert verdicts([compare(*both) for both in slower], "slower") < 50


def test_a_naive_interval_would_not_pass() -> None:
    """The control: without widening, five runs look surer than they are."""
    dice = Random(3)
    wrong = 0
    for _ in range(1000):
        old, new = (dice.choices(RECORDED, k=3) for _ in range(2))
        means = sorted(sum(dice.choices(new, k=3)) / sum(dice.choices(old, k=3)) for _ in range(200))
        wrong += not means[4] <= 1 <= means[-5]
    assert wrong > 70  # of 1000: more than the one in twenty that it promises


# https://en.wikipedia.org/wiki/Student%27s_t-distribution#Table_of_selected_values
@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"),
    [(0.95, 4, 2.776), (0.95, 8, 2.306), (0.99, 4, 4.604), (0.99, 40, 2.704)],
)
def test_quantiles_are_those_of_the_table(confidence: float, degrees: int, quantile: float) -> None:
    assert _student(confidence, degrees) == pytest.approx(quantile, rel=0.02)


def test_the_same_records_give_the_same_interval() -> None:
    old, new = (sampled(Random(seed), DEFAULT) for seed in (4, 5))
    assert compare(old, new) == compare(old, new)


def test_a_published_figure_is_taken_as_exact() -> None:
    found = compare(baselines()["seed"].speeds, {1: [11.0, 11.1, 10.9], 4: [43.0, 43.1, 43.2]}, exact=True)
    assert set(found.rows) == {1, 4}
    assert found.rows[1].verdict == "faster"
    assert found.rows[1].ratio == pytest.approx(11 / 7.6, rel=0.01)


def test_a_row_that_was_measured_once_decides_nothing() -> None:
    """A sweep that was cut short: the last row is half as fast by chance, and the others are as they were."""
    found = compare({1: [10.0, 10.1, 9.9], 2: [20.0]}, {1: [10.0, 10.1, 9.9], 2: [10.0]})
    assert (found.rows[2].low, found.rows[2].verdict) == (0.0, "no difference seen")
    assert found.overall.ratio == pytest.approx(1, abs=0.01)
    assert found.overall.verdict == "no difference seen"


def test_one_run_beside_many_decides_nothing() -> None:
    """A sweep that was cut short after the first run of a row. The control: taken as exact, it is news too often."""
    dice = Random(5)
    pairs = [
        ({1: [1.0, 1.0], 4: dice.choices(RECORDED, k=5)}, {1: [1.0, 1.0], 4: [dice.choice(RECORDED)]})
        for _ in range(TRIALS)
    ]
    assert {compare(*both).rows[4].verdict for both in pairs} == {"no difference seen"}
    assert sum(compare(*both, exact=True).rows[4].verdict != "no difference seen" for both in pairs) > 5
    with pytest.raises(BadInputError, match="no row was measured twice"):
        compare({4: RECORDED[:5]}, {4: RECORDED[:1]})


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(BadInputError, match="share no concurrency: 1 and 2"):
        compare({1: [1.0]}, {2: [1.0]})
    with pytest.raises(BadInputError, match="share no concurrency"):
        compare_pairs({1: [1.0]}, {2: [1.0]})
    with pytest.raises(BadInputError, match="no row was measured twice"):
        compare({1: [1.0]}, {1: [1.0]})


def test_every_published_table_says_where_it_is_from() -> None:
    found = baselines()
    assert {"seed", "author-plain", "author-dflash", "nvidia-nvfp4"} == set(found)
    assert all(len(table.source) > 10 and len(table.method) > 10 for table in found.values())
