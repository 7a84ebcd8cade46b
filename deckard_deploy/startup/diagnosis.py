"""The diagnosis of a failed start: first fatal line, likely cause, and what to type next.

The texts are in signatures.yaml.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from deckard_deploy.startup.log_lines import LogLine, parse, without_secrets
from deckard_deploy.startup.observation import Observation
from deckard_deploy.startup.phases import Phase
from deckard_deploy.system.text import shorten

MAX_LINE = 300  # characters of a fatal line that are shown
MAX_VALUE = 120  # characters of a value taken from the log into cause or fix
HARMLESS = frozenset({"DEBUG", "INFO", "WARNING", "I", "W"})
UNKNOWN = "unknown"
# Lines of a traceback that quote source code, which may hold the text of a message.
_FRAME = re.compile(r' {4}|  File "')
# The last line of a traceback: at its start a dotted class name with an exception's ending.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Timeout|Expired)(?:: |:?$)", re.ASCII)


@dataclass(frozen=True)
class Diagnosis:
    """The cause of a failed start. Every text is one line.

    signature: the id in signatures.yaml, or "unknown".
    """

    phase: Phase
    first_fatal_line: str
    cause: str
    fix: str
    signature: str = UNKNOWN


class Signature(BaseModel):
    """A known failure, recognised by a log line or by the end of the instance.

    cause, fix: `{group}` in them is a named group of `line`.
    last_resort: the line counts only if the log holds no exception, or only echoes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    source: str
    cause: str
    fix: str
    line: re.Pattern[str] | None = None
    last_resort: bool = False
    oom_killed: bool = False
    exit_codes: tuple[int, ...] = ()


class Signatures(BaseModel):
    """The content of signatures.yaml. echoes: lines that repeat a failure that another line reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    echoes: tuple[re.Pattern[str], ...]
    signatures: tuple[Signature, ...]


@cache
def load_signatures() -> Signatures:
    """Return the signatures, in the order of the file."""
    data = yaml.safe_load(Path(__file__).with_name("signatures.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(Signatures).validate_python(data)


def diagnose(lines: Iterable[str], *, phase: Phase, observation: Observation | None = None) -> Diagnosis:
    """Return why a start failed.

    lines: the clean log lines from its beginning, or the runtime's own message if it refused to start.

    Every process up to the API server reports the failure of the one below. So the first line that matches a
    signature counts, even if louder ones follow.
    """
    candidates = list(fatal_lines(lines))
    exception = next(_exceptions(candidates), "")
    if observation is not None and observation.oom_killed:
        return _by_ending(observation, phase, exception, candidates)
    found = _by_line(candidates, phase, last_resort=False)
    if not found and not exception:
        found = _by_line(candidates, phase, last_resort=True)
    return found or _by_ending(observation, phase, exception, candidates)


def fatal_lines(lines: Iterable[str]) -> Iterator[LogLine]:
    """Yield the lines that may name the cause: no INFO or WARNING records, no source code of tracebacks."""
    for text in lines:
        line = parse(text)
        if line.text and line.level not in HARMLESS and not _FRAME.match(line.text):
            yield line


def _by_line(lines: list[LogLine], phase: Phase, *, last_resort: bool) -> Diagnosis | None:
    """Return the diagnosis of the first line that matches a signature."""
    signatures = [each for each in load_signatures().signatures if each.last_resort is last_resort]
    for line in lines:
        for signature in signatures:
            if signature.line and (found := signature.line.search(line.text)):  # guard: F25
                return _diagnosis(signature, phase, line.text, found.groupdict())
    return None


def _by_ending(
    observation: Observation | None, phase: Phase, exception: str, lines: list[LogLine]
) -> Diagnosis:
    """Return the diagnosis of a log without a known line, by the instance's end or the first exception."""
    line = exception
    if not line and lines:
        line = lines[-1].text
    if observation is not None:
        for signature in load_signatures().signatures:
            by_memory = signature.oom_killed and observation.oom_killed
            by_code = not exception and observation.exit_code in signature.exit_codes
            if by_memory or by_code:
                return _diagnosis(signature, phase, line, {})
    code = ""
    if observation is not None and observation.exit_code is not None:
        code = f" (exit code {observation.exit_code})"
    return Diagnosis(
        phase=phase,
        first_fatal_line=_shown(line),
        cause=f"not one of the failures this version knows{code}",
        fix="read the whole log: deckard-deploy logs",
    )


def _exceptions(lines: list[LogLine]) -> Iterator[str]:
    """Yield the last lines of tracebacks without echoes; Python prints root causes first."""
    for number, line in enumerate(lines):
        if not _EXCEPTION.match(line.text) or _is_echo(line):
            continue
        parts = [line]
        if " validation error" in line.text:
            parts += lines[number + 1 : number + 3]  # pydantic names the invalid value below its own line
        yield " ".join(part.text.strip() for part in parts)


def _is_echo(line: LogLine) -> bool:
    return any(echo.search(line.text) for echo in load_signatures().echoes)


def _diagnosis(signature: Signature, phase: Phase, line: str, groups: dict[str, str | None]) -> Diagnosis:
    values = {name: without_secrets(text or "")[:MAX_VALUE] for name, text in groups.items()}  # guard: F26
    return Diagnosis(
        phase=phase,
        first_fatal_line=_shown(line),
        cause=signature.cause.format_map(values),
        fix=signature.fix.format_map(values),
        signature=signature.id,
    )


def _shown(line: str) -> str:
    return shorten(" ".join(without_secrets(line).split()), MAX_LINE)
