"""`diagnose`: the cause of a failure, from the log of any vLLM or docker."""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from deckard_deploy.failures.log_lines import LogLine, parse
from deckard_deploy.failures.matching import find_failure
from deckard_deploy.failures.signatures import Rank
from deckard_deploy.startup.diagnosis import READY, Diagnosis, diagnose, relevant_lines
from deckard_deploy.startup.phases import Phase, PhaseTracker
from deckard_deploy.system.text import RawLineSplitter, clean_bytes

State: TypeAlias = Literal["failed", "ready", "unfinished"]
CHUNK = 1 << 16  # bytes of one read
MAX_BYTES = 1 << 20  # of the lines that are kept of the beginning, and of the end
MAX_LINES = 4000  # of the same
_READY = READY.encode()
_DOCKER_MESSAGE = ("Error response from daemon", "docker: ", "error during connect", "Error: ")


class ByteStream(Protocol):
    """An open file, a pipe, or a text of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


@dataclass(frozen=True)
class LogReport:
    """What a log shows.

    state: failed; ready, which means that the engine was ready and nothing fatal came after; unfinished, which
    means that the log ends while the engine starts, without a failure.
    diagnosis: None when nothing is fatal and nothing is known of a start that hangs here.
    """

    state: State
    phase: Phase
    diagnosis: Diagnosis | None


@dataclass(frozen=True)
class Ended:
    """The end of an instance of which only the exit code is known."""

    exit_code: int
    oom_killed: bool = False


def diagnose_log(stream: ByteStream, exit_code: int | None = None) -> LogReport:
    """Read a log to its end and return what it shows.

    Time and memory are bounded: of a long log, the beginning and the end since the engine was last ready are
    searched.
    """
    kept = _KeptLines()
    splitter = RawLineSplitter()
    while chunk := stream.read(CHUNK):
        kept.add(splitter.feed(chunk))
    kept.add(splitter.feed(b"\n"))
    return _report([clean_bytes(_without_json(line)) for line in kept], exit_code, ready=kept.ready)


def diagnose_lines(lines: Iterable[str], exit_code: int | None = None) -> LogReport:
    """Return what the clean lines of a log show."""
    return _report(list(lines), exit_code, ready=False)


def _without_json(line: bytes) -> bytes:
    """Return the text of a line in a file of docker's log driver json-file."""
    if not line.startswith(b'{"log":"'):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line  # cut off
    return str(record.get("log", "")).rstrip("\n").encode(errors="replace")


@dataclass
class _KeptLines:
    """The first and the last lines since the engine was last ready."""

    ready: bool = False
    _head: list[bytes] = field(default_factory=list)
    _head_bytes: int = 0
    _tail: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_LINES))

    def __iter__(self) -> Iterator[bytes]:
        yield from self._head
        yield from self._tail

    def add(self, lines: list[bytes]) -> None:
        ready = []
        if _READY in b"".join(lines):  # a quick check: there may be 60,000 empty lines
            ready = [number for number, line in enumerate(lines) if _READY in line]
        if ready:
            self.ready = True
            self._head, self._head_bytes = [], 0
            self._tail.clear()
            del lines[: ready[-1] + 1]
        for number, line in enumerate(lines):
            full = len(self._head) == MAX_LINES or self._head_bytes + len(line) > MAX_BYTES
            if self._tail or full:
                self._extend_tail(lines[number:])
                return
            self._head.append(line)
            self._head_bytes += len(line)

    def _extend_tail(self, lines: list[bytes]) -> None:
        self._tail.extend(lines[-MAX_LINES:])
        kept = sum(map(len, self._tail))
        while kept > MAX_BYTES:
            kept -= len(self._tail.popleft())


def _report(lines: list[str], exit_code: int | None, *, ready: bool) -> LogReport:
    tracker = PhaseTracker(0.0)
    for line in lines:
        tracker.feed(line, 0.0)
    parsed = [parse(line) for line in lines]
    texts = {line.text for line in parsed}
    ready = ready or READY in texts
    phase = Phase.SERVER if ready else tracker.progress.phase
    ended = Ended(exit_code) if exit_code is not None else None
    found = diagnose(lines, phase=phase, observation=ended, stalled=not ready and not exit_code)
    refused = any(text.startswith(_DOCKER_MESSAGE) for text in texts)
    if exit_code or refused or _has_failed(found, parsed, ready=ready):
        return LogReport("failed", phase, found)
    if ready:
        return LogReport("ready", phase, None)
    return LogReport("unfinished", phase, found if found.known else None)


def _has_failed(found: Diagnosis, lines: list[LogLine], *, ready: bool) -> bool:
    """Return True if the engine has failed. An engine that is ready survives the failure of a request."""
    if not ready or found.rank is Rank.CAUSE:
        return found.fatal
    return find_failure(relevant_lines(lines), Rank.ECHO) is not None
