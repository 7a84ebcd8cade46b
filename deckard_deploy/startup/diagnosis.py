"""The diagnosis of a failed start: first fatal line, likely cause, and what to type next.

The known failures are in failures/.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deckard_deploy.failures.exceptions import LoggedException, exceptions
from deckard_deploy.failures.log_lines import LogLine, parse, without_secrets
from deckard_deploy.failures.matching import (
    KnownFailure,
    find_area,
    find_failure,
    find_stall,
    known_failure,
    may_be_fatal,
)
from deckard_deploy.failures.signatures import Rank, load_signatures
from deckard_deploy.startup.observation import Ending
from deckard_deploy.startup.phases import Phase
from deckard_deploy.system.text import shorten

MAX_LINE = 300  # characters of a fatal line that are shown
UNKNOWN = "unknown"
READY = "Application startup complete."  # uvicorn/lifespan/on.py:62
# 0.32.0 entrypoints/launcher.py and v1/engine/utils.py; 0.19.1 v1/engine/core.py:1210
_SHUTDOWN = re.compile(r"\[shutdown\] |Shutdown initiated \(timeout")
# entrypoints/utils.py:233, :279
_STARTS = re.compile(r"vLLM (?:API )?server version |non-default args: ")


@dataclass(frozen=True)
class Diagnosis:
    """The cause of a failed start. Every text is one line.

    signature: the id in failures/known, or "unknown". source: where its text can be read.
    fatal: the log itself shows a failure, known or not; not only how the instance ended, or where it hangs.
    rank: that of the signature; None for an unknown failure.
    """

    phase: Phase
    first_fatal_line: str
    cause: str
    fix: str
    signature: str = UNKNOWN
    source: str = ""
    fatal: bool = False
    rank: Rank | None = None

    @property
    def known(self) -> bool:
        """True if the cause is one of failures/known."""
        return self.signature != UNKNOWN


def diagnose(
    lines: Iterable[str], *, phase: Phase, observation: Ending | None = None, stalled: bool = False
) -> Diagnosis:
    """Return why a start, or an engine that was ready, failed.

    lines: the clean log lines from its beginning, or the runtime's own message if it refused to start.
    stalled: it did not end, but makes no progress.
    """
    parsed = relevant_lines([parse(text) for text in lines])
    exception, files = next(exceptions(parsed), LoggedException("", []))
    found = _by_memory(observation, exception)
    if not found:
        found = find_failure(parsed, Rank.CAUSE) or find_failure(parsed, Rank.CONSEQUENCE)
    fatal = bool(found or exception)
    if not found and exception:
        found = find_area(exception, files)
    if not found and not exception:
        found = _by_exit_code(observation, _last_fatal(parsed))
        if not found:
            found = find_failure(parsed, Rank.ECHO)
            fatal = found is not None
    if not found and stalled:
        found = find_stall(parsed)
    line = exception or _last_fatal(parsed)
    if not found:
        return _unknown(line, phase, observation, fatal=fatal)
    if not exception.startswith(found.line):  # an exception has the lines that continue it, too
        line = found.line
    return _diagnosis(found, line, phase, fatal=fatal)


def relevant_lines(lines: Sequence[LogLine]) -> list[LogLine]:
    """Return the lines that can show why the engine failed.

    What it survived before it was ready is not among them, nor what its processes say of one another while it is
    shut down on request.
    """
    relevant: list[LogLine] = []
    shut_down = False
    for line in lines:
        if line.text == READY:
            relevant = []
        shut_down = (shut_down or _SHUTDOWN.match(line.text) is not None) and not _STARTS.match(line.text)
        if not shut_down and line.text != READY:
            relevant.append(line)
    return relevant


def _last_fatal(lines: Sequence[LogLine]) -> str:
    for line in reversed(lines):
        if may_be_fatal(line):
            return line.text
    return ""


def _by_memory(observation: Ending | None, line: str) -> KnownFailure | None:
    """Return the failure of an instance that the kernel has killed for memory: its log need not say so."""
    if observation is None or not observation.oom_killed:
        return None
    for signature in load_signatures():
        if signature.oom_killed:
            return known_failure(signature, line, {})
    return None


def _by_exit_code(observation: Ending | None, line: str) -> KnownFailure | None:
    if observation is None:
        return None
    for signature in load_signatures():
        if observation.exit_code in signature.exit_codes:
            return known_failure(signature, line, {})
    return None


def _diagnosis(found: KnownFailure, line: str, phase: Phase, *, fatal: bool) -> Diagnosis:
    return Diagnosis(
        phase=phase,
        first_fatal_line=_shown(line),
        cause=found.cause,
        fix=found.fix,
        signature=found.signature.id,
        source=found.signature.source,
        fatal=fatal,
        rank=found.signature.rank,
    )


def _unknown(line: str, phase: Phase, observation: Ending | None, *, fatal: bool) -> Diagnosis:
    code = ""
    if observation is not None and observation.exit_code is not None:
        code = f" (exit code {observation.exit_code})"
    return Diagnosis(
        phase=phase,
        first_fatal_line=_shown(line),
        cause=f"not one of the failures this version knows{code}",
        fix="read the whole log: deckard-deploy logs --failed",
        fatal=fatal,
    )


def _shown(line: str) -> str:
    return shorten(" ".join(without_secrets(line).split()), MAX_LINE)
