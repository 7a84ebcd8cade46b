"""How long this host's earlier starts took, and so how long this one will: one JSON line per start."""

import os
from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, ValidationError

from deckard_deploy.startup.phases import ORDER, Phase
from deckard_deploy.system.files import write_atomically

MAX_BYTES = 256 * 1024  # about 600 starts; then the older half goes
LAST = 5  # starts that an estimate rests on


class StartMemory(BaseModel):
    """What a start's log said of one GPU's memory, GiB (None: nothing), and what that depends on.

    requested_gib: what vLLM might take in all; the rest are the log's own figures (Facts in phases.py).
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    in_flight: int
    max_num_seqs: int
    tensor_parallel: int
    drafter: str | None
    requested_gib: NonNegativeFloat
    model_loading_gib: float | None
    available_kv_cache_gib: float | None
    graph_capture_gib: float | None


class Start(BaseModel):
    """One start that ended well. Seconds; `cold`: nothing was compiled before."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    profile: str
    model: str
    engine: str
    cold: bool
    total_s: NonNegativeFloat
    durations: dict[Phase, NonNegativeFloat]
    memory: StartMemory | None = None


class Eta(BaseModel):
    """Medians of `starts` earlier starts, in seconds."""

    model_config = ConfigDict(frozen=True)

    total_s: float
    remaining_s: float
    starts: int


def record(path: Path, start: Start) -> None:
    """Append `start` to the file, which is made if it is missing; raises OSError.

    One write on O_APPEND, so starts that end together do not mix. When the file is trimmed, a start recorded at that
    very moment may be lost: that costs an estimate a sample.
    """
    line = f"{start.model_dump_json()}\n".encode()
    number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(number).st_size
        if size and os.pread(number, 1, size - 1) != b"\n":  # the last writer was cut off
            line = b"\n" + line
        os.write(number, line)
    finally:
        os.close(number)
    if size + len(line) > MAX_BYTES:
        _trim(path)


def starts_like(path: Path, *, profile: str, model: str, engine: str) -> tuple[Start, ...]:
    """The last starts of the same profile, model and engine, oldest first; lines that are none are passed over."""
    found = [
        start
        for start in _read(path)
        if (start.profile, start.model, start.engine) == (profile, model, engine)
    ]
    return tuple(found[-LAST:])


def estimate(starts: tuple[Start, ...], *, phase: Phase, in_phase_s: float) -> Eta | None:
    """What is left when the start has been in `phase` for `in_phase_s` seconds; None without earlier starts."""
    if not starts:
        return None
    later = ORDER[ORDER.index(phase) + 1 :]
    this = max(0.0, _usual(starts, phase) - in_phase_s)
    return Eta(
        total_s=median(start.total_s for start in starts),
        remaining_s=this + sum(_usual(starts, each) for each in later),
        starts=len(starts),
    )


def _usual(starts: tuple[Start, ...], phase: Phase) -> float:
    return median(start.durations.get(phase, 0.0) for start in starts)


def _read(path: Path) -> list[Start]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []  # none yet, or no file: an estimate is not worth an error
    return [start for line in lines if (start := _parsed(line))]


def _parsed(line: bytes) -> Start | None:
    try:
        return Start.model_validate_json(line)
    except ValidationError:
        return None


def _trim(path: Path) -> None:
    """Keep the younger half of the lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    write_atomically(path, b"".join(lines[len(lines) // 2 :]))
