"""Does the drafter pay here, and with how many tokens? Sweeps with each number and with none, compared."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from deckard_deploy.errors import IntegrityError
from deckard_deploy.measuring.comparison import Speeds, compare
from deckard_deploy.measuring.figures import pooled, rows
from deckard_deploy.measuring.records import Drafting, Head, Part, Record
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.system.files import UMASK_MODE, write_atomically

OFF = 0


class Tried(Part):
    """One number of drafted tokens. record: the sweep's id. ratio, low, high: its speed over that without a drafter.

    acceptance: of a draft token, 0 to 1. length: tokens a step yields. by_position: 0 to 1.
    """

    tokens: int
    record: str
    tokens_per_s: dict[int, float]
    ratio: float
    low: float
    high: float
    verdict: Literal["faster", "slower", "no difference seen"]
    acceptance: float | None
    length: float | None
    by_position: tuple[float, ...]


class SpecRecord(Head):
    """What was tried on one machine with one drafter; recommended: tokens to draft, 0 for no drafter."""

    settings: Settings
    off: str
    off_tokens_per_s: dict[int, float]
    tried: tuple[Tried, ...]
    recommended: int

    @property
    def best(self) -> Tried | None:
        """The evidence for what is recommended; None when that is no drafter."""
        return next((each for each in self.tried if each.tokens == self.recommended), None)


def tried(tokens: int, record: Record, off: Record) -> Tried:
    """A sweep beside the one without a drafter."""
    overall = compare(speeds(off), speeds(record)).overall
    drafted = pooled(record.runs)
    return Tried(
        tokens=tokens,
        record=record.id,
        tokens_per_s=medians(record),
        ratio=overall.ratio,
        low=overall.low,
        high=overall.high,
        verdict=overall.verdict,
        acceptance=drafted.rate if drafted else None,
        length=drafted.length if drafted else None,
        by_position=drafted.by_position if drafted else (),
    )


def speeds(record: Record) -> Speeds:
    """Tokens per second of every run, by concurrency."""
    return {number: [run.tokens_per_s for run in record.of(number)] for number in record.concurrencies}


def medians(record: Record) -> dict[int, float]:
    """Tokens per second, by concurrency."""
    return {row.concurrency: row.tokens_per_s.median for row in rows(record)}


def recommended(attempts: Iterable[Tried]) -> int:
    """The number that is surely faster than no drafter, and the fastest of those; else 0.

    When nothing is surely faster the drafter goes: it takes memory, and can be turned on again.
    """
    faster = [each for each in attempts if each.verdict == "faster"]
    return max(faster, key=lambda each: (each.ratio, -each.tokens)).tokens if faster else OFF


def save(folder: Path, record: SpecRecord) -> Path:
    """Write the record. Raises EnvironmentUnfitError."""
    path = folder / f"{record.id}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)
    return path


def latest(folder: Path, wanted: Mapping[str, str], drafting: Drafting) -> SpecRecord | None:
    """The newest record of the same subject and drafter, whose number of tokens may be another.

    wanted: fields of the subject that have to agree. Raises IntegrityError for a file that is none.
    """
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            record = SpecRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise IntegrityError(f"{path} is damaged", hint=f"rm {path}") from error
        of = record.subject.drafting
        same = of is not None and (of.method, _name(of.model)) == (drafting.method, _name(drafting.model))
        if same and all(getattr(record.subject, field) == value for field, value in wanted.items()):
            return record
    return None


def _name(model: str | None) -> str:
    return (model or "").rpartition("/")[2]


def cells(record: SpecRecord) -> list[tuple[str, ...]]:
    """A header, a line without a drafter and one for each number of tokens; at most 80 wide for two concurrencies."""
    numbers = sorted(record.off_tokens_per_s)
    header = (
        "tokens",
        *(f"tok/s @{number}" for number in numbers),
        "accepted",
        "length",
        "ratio",
        "interval",
        "",
    )
    off = ("off", *(f"{record.off_tokens_per_s[number]:.1f}" for number in numbers), *("",) * 5)
    return [header, off, *(_cells(each, numbers) for each in record.tried)]


def _cells(each: Tried, numbers: list[int]) -> tuple[str, ...]:
    return (
        str(each.tokens),
        *(f"{each.tokens_per_s[number]:.1f}" for number in numbers),
        f"{each.acceptance:.0%}" if each.acceptance is not None else "-",
        f"{each.length:.2f}" if each.length is not None else "-",
        f"{each.ratio:.2f}",
        f"{each.low:.2f} to {each.high:.2f}",
        each.verdict,
    )


def advice(record: SpecRecord) -> str:
    """What to do, in a sentence."""
    best = record.best
    if best is None:
        said = "recommended: no drafter; with none of these numbers it was surely faster"
        likeliest = max(record.tried, key=lambda each: each.ratio, default=None)
        if likeliest is None or likeliest.verdict == "slower":
            return said
        interval = f"{likeliest.ratio:.2f} times as fast, {likeliest.low:.2f} to {likeliest.high:.2f}"
        return f"{said} (drafting {likeliest.tokens}: {interval}; more --runs would tell)"
    return (
        f"recommended: draft {best.tokens}: {best.ratio:.2f} times as fast ({best.low:.2f} to {best.high:.2f}), "
        f"{best.length or 1:.2f} tokens a step"
    )
