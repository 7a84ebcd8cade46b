"""Is one server faster than another? Ratios of tokens per second, with confidence intervals.

The unit is a run, because the requests of one run share whatever else the machine did meanwhile. The interval
of a row is Welch's t interval for the difference of two means of logarithms (Welch 1947, "The generalization
of 'Student's' problem when several different population variances are involved"). The interval over all rows
is the same for the mean of the rows' differences, with the degrees of freedom by Satterthwaite's formula. Not
covered: the same server, started twice, may differ by more than the runs of one start show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean, variance
from typing import Literal, NamedTuple, TypeAlias

from deckard_deploy.errors import BadInputError

# One in a hundred A/A comparisons reports a difference, not one in twenty: a nightly comparison would
# otherwise raise a false alarm every month.
CONFIDENCE = 0.99
LARGEST_LOG = 700.0  # exp() of more than 709 overflows a float
Speeds: TypeAlias = Mapping[int, Sequence[float]]
"""Tokens per second of each run, by concurrency."""
SpeedVerdict: TypeAlias = Literal["faster", "slower", "no difference seen"]


@dataclass(frozen=True)
class Ratio:
    """New over old, with the bounds of the interval."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> SpeedVerdict:
        """The verdict on the new server: the interval has to exclude 1."""
        if self.low > 1:
            return "faster"
        if self.high < 1:
            return "slower"
        return "no difference seen"


@dataclass(frozen=True)
class Comparison:
    """rows: by concurrency, bounds that hold for all rows at once.

    overall: the geometric mean of the repeated rows. A row that was measured once has the bounds 0 and
    infinity.
    """

    rows: Mapping[int, Ratio]
    overall: Ratio


def compare(old: Speeds, new: Speeds, *, exact: bool = False) -> Comparison:
    """Compare at every concurrency that both sides have.

    exact: a single figure next to repeated runs is a published one and has no error. Otherwise it is the only
    run of an interrupted sweep, whose error is unknown. Raises BadInputError when the sides share no
    concurrency, or no row was repeated.
    """
    shared = sorted(old.keys() & new.keys())
    if not shared:
        raise BadInputError(
            f"they share no concurrency: {_listed(old)} and {_listed(new)}",
            hint="deckard-deploy bench --concurrency N,N",
        )
    repeated = []
    for number in shared:
        counts = (len(old[number]), len(new[number]))
        decisive = max(counts) if exact else min(counts)
        if decisive > 1:
            repeated.append(number)
    if not repeated:
        raise BadInputError(
            "no row was measured twice on both sides: no difference can be told from chance", hint="--runs 5"
        )
    differences = {number: _difference(old[number], new[number]) for number in shared}
    # Bonferroni: the more rows, the more often one of them is out by chance.
    row_confidence = 1 - (1 - CONFIDENCE) / len(shared)
    rows = {}
    for number, difference in differences.items():
        if number in repeated:
            rows[number] = _ratio(difference, row_confidence)
        else:
            rows[number] = Ratio(exp(difference.mean), 0.0, float("inf"))
    overall = _mean_difference([differences[number] for number in repeated])
    return Comparison(rows=rows, overall=_ratio(overall, CONFIDENCE))


def compare_pairs(old: Speeds, new: Speeds) -> Comparison:
    """Compare runs that were made in turn: the nth run of one side with the nth of the other.

    The unit is the ratio of a pair: a machine that is busy for a minute slows both runs of the pair alike.
    Raises BadInputError when the sides share no concurrency, have different numbers of runs, or no pair was
    repeated.
    """
    ratios = {}
    unity = {}
    for number in sorted(old.keys() & new.keys()):
        before, after = old[number], new[number]
        if len(before) != len(after):
            raise BadInputError(
                f"runs at {number} at once were made in turn, and one record has {len(before)} of them and "
                f"the other {len(after)}",
                hint="deckard-deploy bench list",
            )
        ratios[number] = [new_speed / old_speed for old_speed, new_speed in zip(before, after, strict=True)]
        unity[number] = [1.0]
    if not ratios:
        return compare(old, new, exact=True)
    return compare(unity, ratios, exact=True)


def _listed(speeds: Speeds) -> str:
    return ",".join(map(str, sorted(speeds))) or "none"


class _VarianceTerm(NamedTuple):
    """An estimated variance and its degrees of freedom."""

    variance: float
    degrees: int


class _Difference(NamedTuple):
    """The difference of two mean logarithms. terms: independent parts of its variance."""

    mean: float
    terms: tuple[_VarianceTerm, ...]

    @property
    def variance(self) -> float:
        return sum(term.variance for term in self.terms)

    @property
    def degrees(self) -> float:
        """The effective degrees of freedom of a sum of variances (Satterthwaite 1946)."""
        return 1 / sum((term.variance / self.variance) ** 2 / term.degrees for term in self.terms)


def _difference(old: Sequence[float], new: Sequence[float]) -> _Difference:
    """Return new minus old. A single figure adds no term: it is exact, or the row has no interval."""
    means = []
    terms = []
    for speeds in (old, new):
        logs = [log(speed) for speed in speeds]
        means.append(fmean(logs))
        if len(logs) > 1:
            terms.append(_VarianceTerm(variance(logs) / len(logs), len(logs) - 1))
    old_mean, new_mean = means
    return _Difference(new_mean - old_mean, tuple(terms))


def _mean_difference(differences: Sequence[_Difference]) -> _Difference:
    """Return the mean of independent differences."""
    share = 1 / len(differences)
    terms = []
    for difference in differences:
        for term in difference.terms:
            terms.append(_VarianceTerm(share**2 * term.variance, term.degrees))
    return _Difference(fmean(difference.mean for difference in differences), tuple(terms))


def _ratio(difference: _Difference, confidence: float) -> Ratio:
    half_width = 0.0
    if difference.variance > 0:
        half_width = student(confidence, difference.degrees) * sqrt(difference.variance)
    low, high = difference.mean - half_width, difference.mean + half_width
    return Ratio(_exp(difference.mean), _exp(low), _exp(high))


def _exp(logarithm: float) -> float:
    return exp(min(logarithm, LARGEST_LOG))


def student(confidence: float, degrees: float) -> float:
    """Return the two-sided quantile of Student's distribution.

    By Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5): within 2 % from 4 degrees on.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
