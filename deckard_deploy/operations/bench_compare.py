"""`bench compare`: the speeds of two records or published tables, as ratios with intervals."""

from math import isfinite
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

from deckard_deploy.errors import RegressionError
from deckard_deploy.measuring.comparison import Comparison, Ratio, compare, compare_pairs
from deckard_deploy.measuring.sides import Side, differences_in_settings, differences_in_subject, find_side
from deckard_deploy.measuring.tables import format_number
from deckard_deploy.running.layout import state_directory


class ComparedSides(NamedTuple):
    """Two sides and their comparison.

    paired: they were measured in turn, and are compared pair by pair. different_subjects: the models and machines if
    they differ, otherwise "".
    """

    old: Side
    new: Side
    found: Comparison
    paired: bool
    measured_differently: str
    different_subjects: str


def compare_named(old: str, new: str, state_dir: Path | None) -> ComparedSides:
    """Compare two records or published tables by name. Raises BadInputError, IntegrityError."""
    return compare_sides(find_named(old, state_dir), find_named(new, state_dir))


def find_named(name: str, state_dir: Path | None) -> Side:
    """Return a record or a published table by its name. Raises BadInputError, IntegrityError."""
    return find_side(state_directory(state_dir).bench, name)


def compare_sides(old: Side, new: Side) -> ComparedSides:
    """Compare two sides: pair by pair if they were measured in turn.

    Raises BadInputError without a common row.
    """
    paired = bool(old.record and new.record and old.record.beside == new.record.id)
    published = old.record is None or new.record is None
    if paired:
        found = compare_pairs(old.speeds, new.speeds)
    else:
        found = compare(old.speeds, new.speeds, exact=published)
    return ComparedSides(
        old, new, found, paired, differences_in_settings(old, new), differences_in_subject(old, new)
    )


def require_speed(compared: ComparedSides, fail_below: float) -> None:
    """Raise RegressionError if the new side is slower beyond chance, with a ratio below `fail_below`."""
    overall = compared.found.overall
    if overall.verdict == "slower" and overall.ratio < fail_below:
        raise RegressionError(
            f"{compared.new.name} reaches {overall.ratio:.3f} of {compared.old.name}, "
            f"less than {fail_below:g}",
            hint=f"deckard-deploy bench show {compared.new.name}",
        )


def rows(compared: ComparedSides) -> list[tuple[str, ...]]:
    """Return the comparison as a table with a head: speeds in tok/s, ratios, the share of the roofline."""
    ceilings = {}
    if compared.new.record:
        ceilings = {each.concurrency: each.tokens_per_s for each in compared.new.record.ceilings}
    table: list[tuple[str, ...]] = [("concurrency", "old", "new", "ratio", "interval", "", "of roof")]
    for concurrency, ratio in compared.found.rows.items():
        before = geometric_mean(compared.old.speeds[concurrency])
        after = geometric_mean(compared.new.speeds[concurrency])
        limit = ceilings.get(concurrency)
        roof = f"{after / limit:.0%}" if limit else "unknown"
        table.append((str(concurrency), format_number(before), format_number(after), *_words(ratio), roof))
    table.append(("all", "", "", *_words(compared.found.overall), ""))
    return table


def _words(ratio: Ratio) -> tuple[str, str, str]:
    return f"{ratio.ratio:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", ratio.verdict


def as_json(compared: ComparedSides) -> dict[str, Any]:
    """Return the comparison as plain data."""
    ratios = []
    for concurrency, ratio in compared.found.rows.items():
        ratios.append({"concurrency": concurrency, **_ratio_json(ratio)})
    return {
        "old": {"name": compared.old.name, "about": compared.old.about},
        "new": {"name": compared.new.name, "about": compared.new.about},
        "rows": ratios,
        "overall": _ratio_json(compared.found.overall),
    }


def _ratio_json(ratio: Ratio) -> dict[str, Any]:
    # A row that was measured once has no upper end; JSON has no infinity.
    high = ratio.high if isfinite(ratio.high) else None
    return {"ratio": ratio.ratio, "low": ratio.low, "high": high, "verdict": ratio.verdict}
