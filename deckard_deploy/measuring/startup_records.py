"""Durations of a start, phase by phase, with and without compiled kernels: one JSON file a measurement."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import NonNegativeFloat

from deckard_deploy.measuring.records import RecordBase, RecordPart
from deckard_deploy.system.files import UMASK_MODE, write_atomically


class TimedStart(RecordPart):
    """One start, in seconds. caches: `kept` if an earlier start had compiled the kernels."""

    caches: Literal["empty", "kept"]
    total_s: NonNegativeFloat
    phases: dict[str, NonNegativeFloat]


class StartupRecord(RecordBase):
    """The starts of one plan. The kernel's page cache was left alone: weights read before are read faster."""

    starts: tuple[TimedStart, ...]


def save(folder: Path, record: StartupRecord) -> Path:
    """Write the record as FOLDER/ID.json and return the path. Raises EnvironmentUnfitError."""
    path = folder / f"{record.id}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)
    return path


def cells(starts: Sequence[TimedStart], order: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a header and a line for each phase: seconds with empty caches, with kept ones, and saved."""
    empty = [start for start in starts if start.caches == "empty"]
    kept = [start for start in starts if start.caches == "kept"]
    lines: list[tuple[str, ...]] = [("phase", "caches empty", "kept", "saved")]
    for phase in order:
        empty_s, kept_s = _phase_seconds(empty, phase), _phase_seconds(kept, phase)
        if any(empty_s) or any(kept_s):
            lines.append(_line(phase, empty_s, kept_s))
    empty_total_s = [start.total_s for start in empty]
    kept_total_s = [start.total_s for start in kept]
    return [*lines, _line("total", empty_total_s, kept_total_s)]


def _phase_seconds(starts: Sequence[TimedStart], phase: str) -> list[float]:
    return [start.phases.get(phase, 0.0) for start in starts]


def _line(name: str, empty_s: Sequence[float], kept_s: Sequence[float]) -> tuple[str, ...]:
    saved_s = median(empty_s) - median(kept_s)
    return name, _seconds_text(empty_s), _seconds_text(kept_s), f"{saved_s:.1f} s"


def _seconds_text(seconds: Sequence[float]) -> str:
    """Return the median, and the range of several starts as a measure of chance."""
    text = f"{median(seconds):.1f} s"
    if len(seconds) > 1:
        text += f" ({min(seconds):.1f} to {max(seconds):.1f})"
    return text
