"""Is one server faster than another? Ratios of tokens per second, and how sure they are.

A run is the unit: requests of one run share whatever the machine did meanwhile. The interval is a bootstrap over runs
of the mean logarithm, widened for how few they are: residuals by sqrt(n / (n - 1)), quantiles from the normal to
Student's distribution (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 3.2: the percentile
interval of a handful of values is too narrow).
It knows the runs of two records. That the same server started twice may differ by more, it cannot know.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean
from typing import Literal, NamedTuple, TypeAlias

from deckard_deploy.errors import BadInputError

RESAMPLES = 1000
# Of a difference that is not there one in a hundred is reported, not one in twenty: who compares every night would
# otherwise be woken every month.
CONFIDENCE = 0.99
Speeds: TypeAlias = Mapping[int, Sequence[float]]
"""Tokens per second of each run, by concurrency."""
Verdict: TypeAlias = Literal["faster", "slower", "no difference seen"]


@dataclass(frozen=True)
class Ratio:
    """New over old, with the bounds of the interval."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What can be said of the new one."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no difference seen"


@dataclass(frozen=True)
class Comparison:
    """rows: by concurrency, bounds that hold for all rows at once.

    overall: the geometric mean over those that were repeated; the others have no bounds, for nobody knows the chance.
    """

    rows: Mapping[int, Ratio]
    overall: Ratio


def compare(old: Speeds, new: Speeds, *, exact: bool = False, seed: int = 0) -> Comparison:
    """Compare at every concurrency that both have. Raises BadInputError when there is none, or nothing was repeated.

    exact: a single figure beside repeated runs is a published one, and taken as it is. Else it is the one run of a
    sweep that was cut short, of which nobody knows how far out it is by chance.
    """
    shared = sorted(old.keys() & new.keys())
    if not shared:
        raise BadInputError(
            f"they share no concurrency: {_listed(old)} and {_listed(new)}",
            hint="deckard-deploy bench --concurrency …",
        )
    fewest = max if exact else min
    repeated = [number for number in shared if fewest(len(old[number]), len(new[number])) > 1]
    if not repeated:
        raise BadInputError(
            "no row was measured twice on both sides: no difference can be told from chance", hint="--runs 5"
        )
    dice = random.Random(seed)
    rows = {number: _Logs([log(x) for x in old[number]], [log(x) for x in new[number]]) for number in shared}
    noise = {number: rows[number].noise(dice) for number in repeated}
    # Bonferroni: the more rows, the more often one is out by chance.
    each = 1 - (1 - CONFIDENCE) / len(shared)
    centre = fmean(rows[number].centre for number in repeated)
    together = [fmean(column) for column in zip(*noise.values(), strict=True)]
    return Comparison(
        rows={
            number: _ratio(row.centre, row.degrees, noise[number], each)
            if number in noise
            else Ratio(exp(row.centre), 0.0, float("inf"))
            for number, row in rows.items()
        },
        overall=_ratio(centre, sum(rows[number].degrees for number in repeated), together, CONFIDENCE),
    )


def compare_pairs(old: Speeds, new: Speeds, *, seed: int = 0) -> Comparison:
    """Compare runs that were made in turn: the nth of the one beside the nth of the other. Raises BadInputError.

    A machine that is busy for a minute slows both, so that it falls out of their ratio, and the ratio is the unit.
    """
    uneven = [number for number in old.keys() & new.keys() if len(old[number]) != len(new[number])]
    if uneven:
        raise BadInputError(
            f"runs at {min(uneven)} at once were made in turn, and one record has {len(old[min(uneven)])} of them and "
            f"the other {len(new[min(uneven)])}",
            hint="deckard-deploy bench list",
        )
    pairs = {number: zip(old[number], new[number], strict=True) for number in old.keys() & new.keys()}
    ratios = {number: [after / before for before, after in both] for number, both in pairs.items()}
    return compare({number: [1.0] for number in ratios} or old, ratios or new, exact=True, seed=seed)


def _listed(speeds: Speeds) -> str:
    return ",".join(map(str, sorted(speeds))) or "none"


class _Logs(NamedTuple):
    """The logarithms of one row's speeds."""

    old: list[float]
    new: list[float]

    @property
    def centre(self) -> float:
        return fmean(self.new) - fmean(self.old)

    @property
    def degrees(self) -> int:
        return len(self.old) + len(self.new) - 2

    def noise(self, dice: random.Random) -> list[float]:
        """By how much the centre of a resample is off."""
        old, new = _residuals(self.old), _residuals(self.new)
        return [_mean(new, dice) - _mean(old, dice) for _ in range(RESAMPLES)]


def _ratio(centre: float, degrees: int, noise: list[float], confidence: float) -> Ratio:
    # Out on the tails a thousand resamples say little, so the spread of the bulk is read and carried outward.
    bulk = 0.95
    wide = _student(confidence, degrees) / NormalDist().inv_cdf((1 + bulk) / 2)
    edge, ordered = int(RESAMPLES * (1 - bulk) / 2), sorted(noise)
    return Ratio(
        *(
            exp(min(each, 700))
            for each in (centre, centre + wide * ordered[edge], centre + wide * ordered[-1 - edge])
        )
    )


def _residuals(values: list[float]) -> list[float]:
    middle, few = fmean(values), len(values)
    return [(value - middle) * sqrt(few / (few - 1)) for value in values] if few > 1 else [0.0]


def _mean(values: list[float], dice: random.Random) -> float:
    if len(values) == 1:
        return values[0]
    return sum(dice.choices(values, k=len(values))) / len(values)  # fmean is slow, and this runs 20,000 times


def _student(confidence: float, degrees: int) -> float:
    """The two-sided quantile of Student's distribution.

    By Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5): within 2 % from 4 degrees on.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(
        term / degree for term, degree in zip(terms, (degrees, degrees**2, degrees**3), strict=True)
    )
