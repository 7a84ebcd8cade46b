"""How long this host's earlier starts took, and so how long this one will: one JSON line per start."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from deckard_deploy.startup.phases import Phase


class Start(BaseModel):
    """One start that ended well. Seconds; `cold`: nothing was compiled before."""

    model_config = ConfigDict(frozen=True)

    profile: str
    model: str
    engine: str
    cold: bool
    total_s: float
    durations: dict[Phase, float]


class Eta(BaseModel):
    """Medians of `starts` earlier starts, in seconds."""

    model_config = ConfigDict(frozen=True)

    total_s: float
    remaining_s: float
    starts: int


def record(path: Path, start: Start) -> None:
    """Append `start` to the file, which is made if it is missing."""
    raise NotImplementedError


def starts_like(path: Path, *, profile: str, model: str, engine: str) -> tuple[Start, ...]:
    """The last starts of the same profile, model and engine, oldest first; empty when there are none."""
    raise NotImplementedError


def estimate(starts: tuple[Start, ...], *, phase: Phase, in_phase_s: float) -> Eta | None:
    """What is left when the start has been in `phase` for `in_phase_s` seconds; None without earlier starts."""
    raise NotImplementedError
