"""The trials of `tune`: their speeds and texts beside the baseline's, which of them go on, and which one wins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, ValidationError

from deckard_deploy.errors import IntegrityError, NetworkError
from deckard_deploy.measuring.comparison import Ratio, compare
from deckard_deploy.measuring.draft_acceptance import complete, user_request
from deckard_deploy.measuring.records import Measure, RecordBase, RecordPart, Text
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.system.files import UMASK_MODE, write_atomically
from deckard_deploy.system.http import EndpointCredentials

TEXTS, TEXT_TOKENS = 6, 64  # of the greedy answers that are compared
_BAR = 20  # characters for twice the baseline's speed
SettingsOfTrial: TypeAlias = tuple[Text, ...]


class Trial(RecordPart):
    """One candidate, or the baseline (without settings).

    speeds: tokens per second of every run, by concurrency. distance: of the greedy texts from the baseline's, 0 (the
    same) to 1. start_s: of the last start. rejected: the reason why it was not measured further.
    """

    settings: SettingsOfTrial = ()
    plan: Text | None = None
    rounds: int = 0
    speeds: dict[int, tuple[Measure, ...]] = Field(default_factory=dict)
    distance: float | None = None
    start_s: float | None = None
    rejected: Text = ""

    @property
    def label(self) -> str:
        """The settings in one line."""
        return " ".join(self.settings) or "as it is"

    def with_runs(self, speeds: dict[int, Sequence[float]]) -> "Trial":
        """Return the trial after one more round."""
        merged = {number: tuple(values) for number, values in self.speeds.items()}
        for number, values in speeds.items():
            merged[number] = (*merged.get(number, ()), *values)
        return self.model_copy(update={"speeds": merged, "rounds": self.rounds + 1})


class TuneRecord(RecordBase):
    """A whole search. own_distance: between two greedy answers of the baseline itself.

    winner: the settings of the fastest trial that is faster beyond chance; None: the baseline.
    """

    goal: Text
    limit: Annotated[float, Field(ge=0, le=1)]
    own_distance: float
    baseline: Trial
    trials: tuple[Trial, ...]
    winner: SettingsOfTrial | None = None
    out_of_time: bool = False


def ratio(trial: Trial, baseline: Trial) -> Ratio:
    """Return the trial's speed divided by the baseline's, over all concurrencies."""
    old = {number: list(values) for number, values in baseline.speeds.items()}
    new = {number: list(values) for number, values in trial.speeds.items()}
    return compare(old, new).overall


def better_half(trials: Sequence[Trial], baseline: Trial) -> list[Trial]:
    """Return the faster half of the trials that were measured, rounded up, without those surely slower."""
    measured = [trial for trial in trials if trial.speeds and not trial.rejected]
    ranked = sorted(measured, key=lambda trial: ratio(trial, baseline).ratio, reverse=True)
    kept = ranked[: (len(ranked) + 1) // 2]
    return [trial for trial in kept if ratio(trial, baseline).verdict != "slower"]


def combination(trials: Sequence[Trial], baseline: Trial) -> SettingsOfTrial | None:
    """Return the settings of all trials that are faster beyond chance, the fastest first; None for fewer than two.

    Of several values of one setting the fastest stays.
    """
    ranked = sorted(trials, key=lambda trial: ratio(trial, baseline).ratio, reverse=True)
    chosen: dict[str, str] = {}
    for trial in ranked:
        if ratio(trial, baseline).verdict == "faster":
            for setting in trial.settings:
                chosen.setdefault(setting.partition("=")[0], setting)
    if chosen.get("drafter") == "drafter=none":
        chosen.pop("drafter_tokens", None)
    return tuple(chosen.values()) if len(chosen) > 1 else None


def winner(trials: Sequence[Trial], baseline: Trial) -> Trial | None:
    """Return the trial with the highest speed among those that are faster beyond chance."""
    faster = []
    for trial in trials:
        if trial.speeds and not trial.rejected and ratio(trial, baseline).verdict == "faster":
            faster.append(trial)
    return max(faster, key=lambda trial: ratio(trial, baseline).ratio, default=None)


def distance(before: Sequence[str], after: Sequence[str]) -> float:
    """Return the mean share of a text that comes after the first difference, 0 for equal texts."""
    shares = []
    for old, new in zip(before, after, strict=True):
        same = 0
        while same < min(len(old), len(new)) and old[same] == new[same]:
            same += 1
        shares.append(1 - same / max(len(old), len(new), 1) if old != new else 0.0)
    return sum(shares) / len(shares)


def greedy_texts(base_url: str, served_name: str, access: EndpointCredentials) -> list[str]:
    """Return the greedy answers to fixed prompts. Raises NetworkError."""
    texts = []
    for prompt in Settings().prompts(TEXTS, seed=0):
        body = {**user_request(served_name, prompt, TEXT_TOKENS), "temperature": 0}
        response = complete(base_url, body, access)
        try:
            texts.append(str(response.json()["choices"][0]["message"]["content"] or ""))
        except (LookupError, TypeError, ValueError) as error:
            raise NetworkError(f"{base_url} sent no chat completion", hint="deckard-deploy status") from error
    return texts


def cells(record: TuneRecord) -> list[tuple[str, ...]]:
    """Return the record as a table with a bar for each ratio, the fastest first and the rejected last."""
    baseline = record.baseline
    numbers = sorted(baseline.speeds)
    rows = [("settings", *(f"tok/s at {number}" for number in numbers), "ratio", "interval", "text", "")]
    rows.append((baseline.label, *_medians(baseline, numbers), "1.00", "", "", _bar(1.0)))
    measured = [trial for trial in record.trials if trial.speeds and not trial.rejected]
    for trial in sorted(measured, key=lambda trial: ratio(trial, baseline).ratio, reverse=True):
        found = ratio(trial, baseline)
        text = "same" if not trial.distance else f"{trial.distance:.0%} differs"
        bounds = f"{found.low:.2f} to {found.high:.2f}"
        rows.append(
            (trial.label, *_medians(trial, numbers), f"{found.ratio:.2f}", bounds, text, _bar(found.ratio))
        )
    for trial in record.trials:
        if trial.rejected:
            rows.append((trial.label, *("" for _ in numbers), "", "", "", trial.rejected))
    return rows


def _medians(trial: Trial, numbers: Sequence[int]) -> list[str]:
    cells = []
    for number in numbers:
        values = sorted(trial.speeds[number])
        cells.append(f"{values[len(values) // 2]:,.1f}")
    return cells


def _bar(value: float) -> str:
    return "#" * min(3 * _BAR, round(value * _BAR / 2))


def save(path: Path, record: TuneRecord) -> None:
    """Write a record. Raises EnvironmentUnfitError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)


def load(path: Path) -> TuneRecord | None:
    """Return a record; None if there is none. Raises IntegrityError for a damaged one."""
    if not path.is_file():
        return None
    try:
        return TuneRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, ValueError) as error:
        raise IntegrityError(f"{path} is not a record of tune", hint=f"rm {path}") from error
