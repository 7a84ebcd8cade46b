"""`bench compare`: A/A comparisons find nothing, a slowdown of a tenth is found; samples of real runs."""

import json
from math import exp
from pathlib import Path
from random import Random
from statistics import NormalDist, fmean, stdev

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring.baselines import baselines
from deckard_deploy.measuring.comparison import Comparison, compare, compare_pairs, student
from deckard_deploy.measuring.sweep import enough_runs
from deckard_deploy.measuring.workload import Settings

# Tokens per second of runs one after the other against the CPU rehearsal: 4 at once, 8 requests of 64 tokens.
RECORDED: list[float] = json.loads((Path(__file__).parent / "recorded" / "speeds-0.19.1.json").read_text())
CONCURRENCIES = (1, 2, 4, 8, 16)
TRIALS = 100
DEFAULT = Settings(most_runs=15)  # the default of `bench`


def draw_sweep(random: Random, settings: Settings, slowed: float = 1.0) -> dict[int, list[float]]:
    """A sweep of a server whose runs are spread as the recorded ones were."""
    sweep: dict[int, list[float]] = {number: [] for number in CONCURRENCIES}
    for number, speeds in sweep.items():
        while not enough_runs(speeds, settings):
            speeds.append(slowed * number * random.choice(RECORDED))
    return sweep


def draw_comparisons(slowed: float, settings: Settings = DEFAULT) -> list[Comparison]:
    random = Random(20261126)
    comparisons = []
    for _ in range(TRIALS):
        old = draw_sweep(random, settings)
        comparisons.append(compare(old, draw_sweep(random, settings, slowed)))
    return comparisons


def count_verdicts(comparisons: list[Comparison], wanted: str) -> int:
    return sum(comparison.overall.verdict == wanted for comparison in comparisons)


def test_same_server_twice_is_no_difference() -> None:
    comparisons = draw_comparisons(1.0)
    assert count_verdicts(comparisons, "no difference seen") >= 95
    rows = [{ratio.verdict for ratio in comparison.rows.values()} for comparison in comparisons]
    assert rows.count({"no difference seen"}) >= 95


def test_slowdown_of_a_tenth_is_found() -> None:
    comparisons = draw_comparisons(0.9)
    assert count_verdicts(comparisons, "slower") >= 95
    assert sum(each.overall.low <= 0.9 <= each.overall.high for each in comparisons) >= 95
    # The control: on a machine as noisy, five runs and no more find it in two of three trials.
    assert count_verdicts(draw_comparisons(0.9, Settings()), "slower") < 80


def draw_normal_runs(random: Random, count: int) -> list[float]:
    """Runs of a server with a spread of 2 %."""
    return [100 * exp(random.gauss(0, 0.02)) for _ in range(count)]


@pytest.mark.parametrize("count", [3, 5, 15])
def test_interval_covers_the_truth_as_promised(count: int) -> None:
    """0.99 is promised. Of 1,000 A/A pairs, 980 is below the mean of 990 by three standard deviations."""
    random = Random(3)
    covered = 0
    for _ in range(1000):
        overall = compare({1: draw_normal_runs(random, count)}, {1: draw_normal_runs(random, count)}).overall
        covered += overall.low <= 1 <= overall.high
    assert covered >= 980


@pytest.mark.parametrize("count", [5, 15])
def test_slowdown_of_a_tenth_in_one_row_is_found(count: int) -> None:
    random = Random(4)
    for _ in range(100):
        old = draw_normal_runs(random, count)
        new = [0.9 * speed for speed in draw_normal_runs(random, count)]
        comparison = compare({1: old}, {1: new})
        assert comparison.overall.verdict == comparison.rows[1].verdict == "slower"


def test_unequal_spreads_are_covered_as_promised() -> None:
    """Three runs that vary by 5 % against fifteen that vary by 1 %: pooling the variances would not cover."""
    random = Random(5)
    covered = 0
    for _ in range(1000):
        old = [exp(random.gauss(0, 0.05)) for _ in range(3)]
        new = [exp(random.gauss(0, 0.01)) for _ in range(15)]
        overall = compare({1: old}, {1: new}).overall
        covered += overall.low <= 1 <= overall.high
    assert covered >= 980


def test_normal_quantile_would_not_cover() -> None:
    """The control: with the normal quantile in place of Student's, three runs look surer than they are."""
    random = Random(3)
    quantile = NormalDist().inv_cdf(0.975)
    wrong = 0
    for _ in range(1000):
        old, new = random.choices(RECORDED, k=3), random.choices(RECORDED, k=3)
        half_width = quantile * ((stdev(old) ** 2 + stdev(new) ** 2) / 3) ** 0.5
        wrong += abs(fmean(new) - fmean(old)) > half_width
    assert wrong > 70  # of 1,000: more than the one in twenty that is promised


def draw_pairs(random: Random, slowed: float) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Five runs of each server in turn: other load on the machine lasts longer than a pair, but for 2 %."""
    load = [random.choice(RECORDED) for _ in range(5)]
    old = [speed * random.gauss(1, 0.02) for speed in load]
    new = [slowed * speed * random.gauss(1, 0.02) for speed in load]
    return {4: old}, {4: new}


def test_pairs_cancel_load_that_lasts_a_while() -> None:
    random = Random(7)
    same = [draw_pairs(random, 1.0) for _ in range(TRIALS)]
    slower = [draw_pairs(random, 0.9) for _ in range(TRIALS)]
    assert count_verdicts([compare_pairs(*pair) for pair in same], "no difference seen") >= 95
    assert count_verdicts([compare_pairs(*pair) for pair in slower], "slower") >= 95
    # The control: the same runs, compared as if one sweep had followed the other.
    assert count_verdicts([compare(*pair) for pair in slower], "slower") < 50


# https://en.wikipedia.org/wiki/Student%27s_t-distribution#Table_of_selected_values
@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"),
    [(0.95, 4, 2.776), (0.95, 8, 2.306), (0.99, 4, 4.604), (0.99, 40, 2.704)],
)
def teststudent_quantiles_match_the_table(confidence: float, degrees: int, quantile: float) -> None:
    assert student(confidence, degrees) == pytest.approx(quantile, rel=0.02)


def test_runs_without_spread_have_a_point_interval() -> None:
    comparison = compare({1: [10.0, 10.0]}, {1: [11.0, 11.0]})
    assert comparison.overall.low == comparison.overall.high == pytest.approx(1.1)
    assert comparison.overall.verdict == "faster"


def test_published_figure_is_exact() -> None:
    found = compare(baselines()["seed"].speeds, {1: [11.0, 11.1, 10.9], 4: [43.0, 43.1, 43.2]}, exact=True)
    assert set(found.rows) == {1, 4}
    assert found.rows[1].verdict == "faster"
    assert found.rows[1].ratio == pytest.approx(11 / 7.6, rel=0.01)


def test_row_measured_once_decides_nothing() -> None:
    """An interrupted sweep: the last row is half as fast by chance, and the others are unchanged."""
    found = compare({1: [10.0, 10.1, 9.9], 2: [20.0]}, {1: [10.0, 10.1, 9.9], 2: [10.0]})
    assert (found.rows[2].low, found.rows[2].verdict) == (0.0, "no difference seen")
    assert found.overall.ratio == pytest.approx(1, abs=0.01)
    assert found.overall.verdict == "no difference seen"


def test_one_run_against_many_decides_nothing() -> None:
    """A sweep interrupted after the first run of a row. The control: taken as exact, it is news too often."""
    random = Random(5)
    pairs = []
    for _ in range(TRIALS):
        old = {1: [1.0, 1.0], 4: random.choices(RECORDED, k=5)}
        pairs.append((old, {1: [1.0, 1.0], 4: [random.choice(RECORDED)]}))
    assert {compare(*pair).rows[4].verdict for pair in pairs} == {"no difference seen"}
    assert sum(compare(*pair, exact=True).rows[4].verdict != "no difference seen" for pair in pairs) > 5
    with pytest.raises(BadInputError, match="no row was measured twice"):
        compare({4: RECORDED[:5]}, {4: RECORDED[:1]})


def test_incomparable_sides_are_refused() -> None:
    with pytest.raises(BadInputError, match="share no concurrency: 1 and 2"):
        compare({1: [1.0]}, {2: [1.0]})
    with pytest.raises(BadInputError, match="share no concurrency"):
        compare_pairs({1: [1.0]}, {2: [1.0]})
    with pytest.raises(BadInputError, match="no row was measured twice"):
        compare({1: [1.0]}, {1: [1.0]})
    with pytest.raises(BadInputError, match="one record has 1 of them and the other 2"):
        compare_pairs({1: [1.0]}, {1: [1.0, 2.0]})
