"""Durations of earlier starts on this host, one JSON line each, and estimates from them."""

import os
from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, ValidationError

from deckard_deploy.startup.phases import ORDER, Phase
from deckard_deploy.system.files import write_atomically

MAX_BYTES = 256 * 1024  # about 600 starts; then the older half is removed
LAST = 5  # starts that an estimate is computed from


class StartMemory(BaseModel):
    """The memory of one GPU in GiB, as logged at a start (None: not logged), and the settings it depends on.

    requested_gib: all memory that vLLM was allowed to take. The other figures are those of the log
    (phases.Facts).
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
    """One start that succeeded, in seconds. cold: no compiled code was cached."""

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
    """Append `start` to the file, which is created if it does not exist. Raises OSError.

    One write on O_APPEND, so starts that end at the same time do not mix. A start that is recorded while the
    file is trimmed may be lost, which costs an estimate one sample.
    """
    line = f"{start.model_dump_json()}\n".encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # the last writer was cut off
            line = b"\n" + line
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    if size + len(line) > MAX_BYTES:
        _trim(path)


def starts_like(path: Path, *, profile: str, model: str, engine: str) -> tuple[Start, ...]:
    """Return the last starts of the same profile, model and engine, oldest first; skip invalid lines."""
    found = []
    for start in _read(path):
        if (start.profile, start.model, start.engine) == (profile, model, engine):
            found.append(start)
    return tuple(found[-LAST:])


def estimate(starts: tuple[Start, ...], *, phase: Phase, in_phase_s: float) -> Eta | None:
    """Return the remaining time of a start that has been in `phase` for `in_phase_s` seconds.

    The first start on a host compiles, and takes three times as long as the next: it counts only while there is no
    other. None without earlier starts.
    """
    if not starts:
        return None
    starts = tuple(start for start in starts if not start.cold) or starts
    remaining_s = max(0.0, _median(starts, phase) - in_phase_s)
    for later in ORDER[ORDER.index(phase) + 1 :]:
        remaining_s += _median(starts, later)
    return Eta(total_s=median(start.total_s for start in starts), remaining_s=remaining_s, starts=len(starts))


def _median(starts: tuple[Start, ...], phase: Phase) -> float:
    return median(start.durations.get(phase, 0.0) for start in starts)


def _read(path: Path) -> list[Start]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []  # no file yet, or not a file: a missing estimate is not an error
    starts = []
    for line in lines:
        try:
            starts.append(Start.model_validate_json(line))
        except ValidationError:
            continue
    return starts


def _trim(path: Path) -> None:
    """Keep the newer half of the lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    write_atomically(path, b"".join(lines[len(lines) // 2 :]))
