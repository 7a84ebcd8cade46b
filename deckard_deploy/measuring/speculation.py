"""Does the drafter pay, and with how many tokens? Sweeps with each number and with none, compared."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from deckard_deploy.errors import IntegrityError
from deckard_deploy.measuring.comparison import Speeds, compare
from deckard_deploy.measuring.figures import draft_figures, rows
from deckard_deploy.measuring.records import BenchRecord, Drafting, RecordBase, RecordPart
from deckard_deploy.measuring.tables import acceptance_cells
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.system.files import UMASK_MODE, write_atomically

OFF = 0


class Trial(RecordPart):
    """One number of drafted tokens. record: the sweep's id.

    ratio, low, high: the speed over that without a drafter. acceptance: of a draft token, 0 to 1. length:
    tokens per step. by_position: 0 to 1.
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


class SpecRecord(RecordBase):
    """The trials of one drafter on one machine. recommended: tokens to draft, 0 for no drafter."""

    settings: Settings
    off: str
    off_tokens_per_s: dict[int, float]
    tried: tuple[Trial, ...]
    recommended: int

    @property
    def best(self) -> Trial | None:
        """The recommended trial; None when no drafter is recommended."""
        for trial in self.tried:
            if trial.tokens == self.recommended:
                return trial
        return None

    def recommendation_text(self) -> str:
        """Return the recommendation as a sentence."""
        best = self.best
        if best is not None:
            return (
                f"recommended: draft {best.tokens}: {best.ratio:.2f} times as fast "
                f"({best.low:.2f} to {best.high:.2f}), {best.length or 1:.2f} tokens a step"
            )
        text = "recommended: no drafter; with none of these numbers it was surely faster"
        likeliest = max(self.tried, key=lambda trial: trial.ratio, default=None)
        if likeliest is None or likeliest.verdict == "slower":
            return text
        interval = f"{likeliest.ratio:.2f} times as fast, {likeliest.low:.2f} to {likeliest.high:.2f}"
        return f"{text} (drafting {likeliest.tokens}: {interval}; more --runs would tell)"


def evaluate(tokens: int, record: BenchRecord, off: BenchRecord) -> Trial:
    """Compare a sweep that drafts `tokens` with the sweep `off`, which has no drafter."""
    overall = compare(speeds(off), speeds(record)).overall
    draft = draft_figures(record.runs)
    return Trial(
        tokens=tokens,
        record=record.id,
        tokens_per_s=median_speeds(record),
        ratio=overall.ratio,
        low=overall.low,
        high=overall.high,
        verdict=overall.verdict,
        acceptance=draft.acceptance,
        length=draft.length,
        by_position=draft.by_position,
    )


def speeds(record: BenchRecord) -> Speeds:
    """Return the tokens per second of every run, by concurrency."""
    found = {}
    for number in record.concurrencies:
        found[number] = [run.tokens_per_s for run in record.of(number)]
    return found


def median_speeds(record: BenchRecord) -> dict[int, float]:
    """Return the median tokens per second, by concurrency."""
    return {row.concurrency: row.tokens_per_s.median for row in rows(record)}


def recommend(attempts: Iterable[Trial]) -> int:
    """Return the fastest number of tokens whose interval is above 1, or 0.

    Without such a number the drafter goes: it takes memory, and can be turned on again.
    """
    faster = [trial for trial in attempts if trial.verdict == "faster"]
    if not faster:
        return OFF
    return max(faster, key=lambda trial: (trial.ratio, -trial.tokens)).tokens


def save(folder: Path, record: SpecRecord) -> Path:
    """Write the record as FOLDER/ID.json and return the path. Raises EnvironmentUnfitError."""
    path = folder / f"{record.id}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)
    return path


def latest_record(folder: Path, wanted: Mapping[str, str], drafting: Drafting) -> SpecRecord | None:
    """Return the newest record of the same subject and drafter, with any number of tokens.

    wanted: fields of the subject that have to agree. Raises IntegrityError for a file that is not such a
    record.
    """
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            record = SpecRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise IntegrityError(f"{path} is damaged", hint=f"rm {path}") from error
        if not _same_drafter(record.subject.drafting, drafting):
            continue
        if all(getattr(record.subject, field) == value for field, value in wanted.items()):
            return record
    return None


def _same_drafter(one: Drafting | None, other: Drafting) -> bool:
    if one is None or one.method != other.method:
        return False
    return _model_name(one.model) == _model_name(other.model)


def _model_name(model: str | None) -> str:
    return (model or "").rpartition("/")[2]


def cells(record: SpecRecord) -> list[tuple[str, ...]]:
    """Return a header, a line without a drafter and one for each trial; 80 columns hold two concurrencies."""
    numbers = sorted(record.off_tokens_per_s)
    speed_names = [f"tok/s @{number}" for number in numbers]
    header = ("tokens", *speed_names, "accepted", "length", "ratio", "interval", "")
    lines = [header, ("off", *_speed_cells(record.off_tokens_per_s, numbers), "", "", "", "", "")]
    for trial in record.tried:
        lines.append(_trial_cells(trial, numbers))
    return lines


def _speed_cells(tokens_per_s: Mapping[int, float], numbers: list[int]) -> list[str]:
    return [f"{tokens_per_s[number]:.1f}" for number in numbers]


def _trial_cells(trial: Trial, numbers: list[int]) -> tuple[str, ...]:
    return (
        str(trial.tokens),
        *_speed_cells(trial.tokens_per_s, numbers),
        *acceptance_cells(trial.acceptance, trial.length),
        f"{trial.ratio:.2f}",
        f"{trial.low:.2f} to {trial.high:.2f}",
        trial.verdict,
    )
