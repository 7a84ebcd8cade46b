"""How long a start takes, phase by phase, with compiled kernels kept and without: one JSON file a measurement."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import NonNegativeFloat

from deckard_deploy.measuring.records import Head, Part
from deckard_deploy.system.files import UMASK_MODE, write_atomically


class Timed(Part):
    """One start, in seconds; caches: whether the engine found the kernels that an earlier start had compiled."""

    caches: Literal["empty", "kept"]
    total_s: NonNegativeFloat
    phases: dict[str, NonNegativeFloat]


class StartupRecord(Head):
    """The starts of one plan. The kernel's page cache was left as it was: weights read before are read faster."""

    starts: tuple[Timed, ...]


def save(folder: Path, record: StartupRecord) -> Path:
    """Write the record. Raises EnvironmentUnfitError."""
    path = folder / f"{record.id}.json"
    write_atomically(path, record.model_dump_json(indent=1) + "\n", mode=UMASK_MODE)
    return path


def cells(starts: Sequence[Timed], order: Sequence[str]) -> list[tuple[str, ...]]:
    """A header and a line for each phase: seconds with empty caches, with kept ones, and what they save."""
    groups = [[start for start in starts if start.caches == kind] for kind in ("empty", "kept")]
    lines: list[tuple[str, ...]] = [("phase", "caches empty", "kept", "saved")]
    for phase in order:
        spent = [[start.phases.get(phase, 0.0) for start in group] for group in groups]
        if any(map(sum, spent)):
            lines.append(_line(phase, spent))
    return [*lines, _line("total", [[start.total_s for start in group] for group in groups])]


def _line(name: str, spent: Sequence[Sequence[float]]) -> tuple[str, ...]:
    empty, kept = (median(seconds) for seconds in spent)
    return name, *(_spread(seconds) for seconds in spent), f"{empty - kept:.1f} s"


def _spread(seconds: Sequence[float]) -> str:
    """The median; what several starts differ by says how much of a difference is chance."""
    several = f" ({min(seconds):.1f} to {max(seconds):.1f})" if len(seconds) > 1 else ""
    return f"{median(seconds):.1f} s{several}"
