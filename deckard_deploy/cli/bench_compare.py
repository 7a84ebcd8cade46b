"""`bench compare`: two records, or a record and a published table, side by side."""

import json
import textwrap
from math import isfinite
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import click

from deckard_deploy.cli.options import FiniteRange
from deckard_deploy.cli.output import table
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.errors import BadInputError, RegressionError
from deckard_deploy.measuring import comparison as comparing
from deckard_deploy.measuring import records
from deckard_deploy.measuring.baselines import Baseline, baselines
from deckard_deploy.measuring.comparison import Comparison, Ratio
from deckard_deploy.measuring.records import Record
from deckard_deploy.measuring.tables import number


class Side(NamedTuple):
    """What is compared: its speeds, and what a reader has to know of it."""

    name: str
    speeds: dict[int, list[float]]
    about: str
    record: "Record | None" = None


@click.command()
@click.argument("old")
@click.argument("new", default="last")
@click.option(
    "--fail-below", type=FiniteRange(0.01, 100), help="Exit code 10 when surely slower, and by that."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_option
def compare(old: str, new: str, *, fail_below: float | None, as_json: bool, state_dir: Path | None) -> None:
    """Compare two records, or a record with a published table.

    OLD and NEW are records as `bench show` takes them, or the name of a table: seed, author-plain, author-dflash,
    nvidia-nvfp4. A ratio above 1: NEW is faster. With --fail-below 0.95 the exit code is 10 when NEW is slower beyond
    chance and the ratio over all repeated rows is below 0.95.

    \b
    Example:
      deckard-deploy bench compare seed last --fail-below 0.95
    """
    folder = state(state_dir).bench
    show(side(folder, old), side(folder, new), as_json=as_json, fail_below=fail_below)


def side(folder: Path, name: str) -> Side:
    """A published table by its name, or a record. Raises BadInputError, IntegrityError."""
    if published := baselines().get(name):
        about = f"{published.title}, on a {published.machine}; {published.method} ({published.source})"
        return Side(name, published.speeds, about)
    return of_record(records.load(records.find(folder, name)))


def published(name: str) -> "Baseline":
    """The published table of that name. Raises BadInputError."""
    if name not in baselines():
        raise BadInputError(
            f"no published table {name[:80]!r}; known: {', '.join(baselines())}", hint="--compare seed"
        )
    return baselines()[name]


def of_record(record: "Record") -> Side:
    """A record's speeds."""
    speeds = {number: [run.tokens_per_s for run in record.of(number)] for number in record.concurrencies}
    subject = record.subject
    drafter = f", {subject.drafting.method} drafting {subject.drafting.tokens}" if subject.drafting else ""
    about = f"{subject.model} on {subject.profile or '?'}, vLLM {subject.vllm_version}{drafter}"
    return Side(record.id, speeds, about, record)


def show(old: Side, new: Side, *, as_json: bool, fail_below: float | None = None) -> None:
    """Print the comparison. Raises RegressionError."""
    pairs = old.record and new.record and old.record.beside == new.record.id
    published = old.record is None or new.record is None
    found = (
        comparing.compare_pairs(old.speeds, new.speeds)
        if pairs
        else comparing.compare(old.speeds, new.speeds, exact=published)
    )
    if as_json:
        click.echo(json.dumps(_json(old, new, found), indent=2))
    else:
        _print(old, new, found)
        if apart := _measured_differently(old, new):
            click.echo(f"MEASURED DIFFERENTLY: {apart}")
        if pairs:
            click.echo("measured in turn, and compared pair by pair")
    overall = found.overall
    if fail_below is not None and overall.verdict == "slower" and overall.ratio < fail_below:
        raise RegressionError(
            f"{new.name} reaches {overall.ratio:.3f} of {old.name}, less than {fail_below:g}",
            hint=f"deckard-deploy bench show {new.name}",
        )


def _print(old: Side, new: Side, found: "Comparison") -> None:

    ceilings = {c.concurrency: c.tokens_per_s for c in new.record.ceilings} if new.record else {}
    rows = [("at once", "old", "new", "ratio", "interval", "", "of roof")]
    for concurrency, ratio in found.rows.items():
        before, after = (_geometric(each.speeds[concurrency]) for each in (old, new))
        limit = ceilings.get(concurrency)
        roof = f"{after / limit:.0%}" if limit else "unknown"
        rows.append((str(concurrency), number(before), number(after), *_words(ratio), roof))
    rows.append(("all", "", "", *_words(found.overall), ""))
    table(rows)
    for label, each in (("old", old), ("new", new)):
        click.echo(
            "\n".join(textwrap.wrap(f"{label}  {each.name}: {each.about}", 80, subsequent_indent="     "))
        )


def _measured_differently(old: Side, new: Side) -> str:
    """In what two records were not asked the same; of a published table nobody knows."""
    if old.record is None or new.record is None:
        return ""
    before, after = old.record.settings, new.record.settings
    fields = ("workload", "output_tokens", "input_tokens", "requests")
    pairs = {field: (getattr(before, field), getattr(after, field)) for field in fields}
    if before.workload == after.workload == "text":
        del pairs["input_tokens"]  # of random tokens only
    return ", ".join(f"{field} {one} and {other}" for field, (one, other) in pairs.items() if one != other)


def _words(ratio: "Ratio") -> tuple[str, str, str]:
    return f"{ratio.ratio:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", ratio.verdict


def _geometric(values: list[float]) -> float:

    return geometric_mean(values)


def _json(old: Side, new: Side, found: "Comparison") -> dict[str, Any]:
    def said(ratio: "Ratio") -> dict[str, Any]:
        # Of a row that was measured once; JSON has no infinity.
        high = ratio.high if isfinite(ratio.high) else None
        return {"ratio": ratio.ratio, "low": ratio.low, "high": high, "verdict": ratio.verdict}

    return {
        "old": {"name": old.name, "about": old.about},
        "new": {"name": new.name, "about": new.about},
        "rows": [{"concurrency": number, **said(ratio)} for number, ratio in found.rows.items()],
        "overall": said(found.overall),
    }
