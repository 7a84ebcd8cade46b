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
from typing import Literal, TypeAlias

from deckard_deploy.errors import BadInputError

RESAMPLES = 1000
# Of a difference that is not there one in a hundred is reported, not one in twenty: who compares every night would
# otherwise be woken every month.
CONFIDENCE = 0.99
Speeds: TypeAlias = Mapping[int, Sequence[float]]
"""Tokens per second of each run, by concurrency; a single one is taken as exact (a published figure)."""
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
    """rows: by concurrency, bounds that hold for all rows at once. overall: the geometric mean over them."""

    rows: Mapping[int, Ratio]
    overall: Ratio


def compare(old: Speeds, new: Speeds, *, seed: int = 0) -> Comparison:
    """Compare at every concurrency that both have. Raises BadInputError when there is none, or nothing was repeated."""
    shared = sorted(old.keys() & new.keys())
    if not shared:
        raise BadInputError(
            f"they share no concurrency: {_listed(old)} and {_listed(new)}", hint="deckard-deploy bench --concurrency …"
        )
    if all(len(old[number]) == len(new[number]) == 1 for number in shared):
        raise BadInputError("nothing was measured twice: no difference can be told from chance", hint="--runs 5")
    dice = random.Random(seed)  # noqa: S311  no secrets; the same records give the same interval
    pairs = {number: ([log(x) for x in old[number]], [log(x) for x in new[number]]) for number in shared}
    each = 1 - (1 - CONFIDENCE) / len(shared)  # Bonferroni: the more rows, the more often one is out by chance
    return Comparison(
        rows={number: _ratio([pair], each, dice) for number, pair in pairs.items()},
        overall=_ratio(list(pairs.values()), CONFIDENCE, dice),
    )


def _listed(speeds: Speeds) -> str:
    return ",".join(map(str, sorted(speeds))) or "none"


def _ratio(pairs: Sequence[tuple[list[float], list[float]]], confidence: float, dice: random.Random) -> Ratio:
    centre = fmean(fmean(new) - fmean(old) for old, new in pairs)
    degrees = sum(len(side) - 1 for pair in pairs for side in pair)
    residuals = [(_residuals(old), _residuals(new)) for old, new in pairs]
    noise = sorted(
        sum(_mean(new, dice) - _mean(old, dice) for old, new in residuals) / len(pairs) for _ in range(RESAMPLES)
    )
    if degrees == 0:
        return Ratio(exp(centre), 0.0, float("inf"))  # a row that was measured once
    # Out on the tails a thousand resamples say little, so the spread of the bulk is read and carried outward.
    bulk = 0.95
    wide = _student(confidence, degrees) / NormalDist().inv_cdf((1 + bulk) / 2)
    edge = int(RESAMPLES * (1 - bulk) / 2)
    return Ratio(exp(centre), exp(centre + wide * noise[edge]), exp(centre + wide * noise[-1 - edge]))


def _residuals(values: list[float]) -> list[float]:
    middle, few = fmean(values), len(values)
    return [(value - middle) * sqrt(few / (few - 1)) for value in values] if few > 1 else [0.0]


def _mean(values: list[float], dice: random.Random) -> float:
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
    return z + sum(term / degree for term, degree in zip(terms, (degrees, degrees**2, degrees**3), strict=True))
