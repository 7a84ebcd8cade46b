"""The statistics of paired runs."""

import math
import statistics
from collections.abc import Sequence


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of paired differences, and the bounds of its interval of 95 % confidence.

    The bounds are two of the differences, by their rank (the interval of the sign test), so nothing is assumed about
    their distribution. Needs six at least.
    """
    ordered, count = sorted(differences), len(differences)
    outside, rank = 0.0, 0
    while True:
        outside += math.comb(count, rank) / 2**count
        if outside > 0.025:
            break
        rank += 1
    if rank == 0:
        raise ValueError(f"{count} pairs are too few for an interval")
    return statistics.median(ordered), ordered[rank - 1], ordered[count - rank]
