"""A failed start -> its first fatal line, the likely cause and what to type next; the texts are in signatures.yaml."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from deckard_deploy.startup.log_lines import LogLine, read_lines, without_secrets
from deckard_deploy.startup.observation import Observation
from deckard_deploy.startup.phases import Phase

MAX_LINE = 300  # characters of a fatal line that are shown
MAX_VALUE = 120  # characters of a value taken from the log into cause or fix
HARMLESS = frozenset({"DEBUG", "INFO", "WARNING", "I", "W"})
UNKNOWN = "unknown"
# A traceback's frames quote source code, messages included.
_FRAME = re.compile(r' {4}|  File "')
# A traceback's last line: a dotted class name that ends as exceptions do, at the line's start.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Timeout|Expired)(?:: |:?$)", re.ASCII)


@dataclass(frozen=True)
class Diagnosis:
    """`signature` is the id in signatures.yaml, or "unknown". Every text is one line."""

    phase: Phase
    first_fatal_line: str
    cause: str
    fix: str
    signature: str = UNKNOWN


class Signature(BaseModel):
    """A known failure: by a log line, or by how the instance ended. `{group}` in cause and fix is a group of `line`.

    `last_resort`: the line counts only in a log that holds no exception but echoes.
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
    """signatures.yaml. `echoes` are lines that report another line's failure once more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    echoes: tuple[re.Pattern[str], ...]
    signatures: tuple[Signature, ...]


@cache
def known() -> Signatures:
    """The signatures, in the order of the file."""
    data = yaml.safe_load(Path(__file__).with_name("signatures.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(Signatures).validate_python(data)


def diagnose(lines: Iterable[str], *, phase: Phase, observation: Observation | None = None) -> Diagnosis:
    """Why a start failed. `lines` are the log from its beginning, or what the runtime printed when it refused.

    The first line that a signature knows wins over louder ones after it, since every process up to the API server
    reports the failure of the one below.
    """
    read = list(fatal_lines(lines))
    exception = next(_exceptions(read), "")
    by_memory = observation is not None and observation.oom_killed
    named = None if by_memory else _named(read, phase, last_resort=False)
    if not named and not by_memory and not exception:
        named = _named(read, phase, last_resort=True)
    return named or _ended(observation, phase, exception, read)


def _named(lines: list[LogLine], phase: Phase, *, last_resort: bool) -> Diagnosis | None:
    """The first line that one of the signatures is found in."""
    signatures = [each for each in known().signatures if each.last_resort is last_resort]
    for line in lines:
        for signature in signatures:
            if signature.line and (found := signature.line.search(line.text)):  # guard: F25
                return _diagnosis(signature, phase, line.text, found.groupdict())
    return None


def fatal_lines(lines: Iterable[str]) -> Iterator[LogLine]:
    """The lines that may say why a start failed: no records at INFO or WARNING, no source code in tracebacks."""
    for raw in lines:
        for line in read_lines(raw):
            if line.level not in HARMLESS and not _FRAME.match(line.text):
                yield line


def _ended(observation: Observation | None, phase: Phase, exception: str, lines: list[LogLine]) -> Diagnosis:
    """No known line: what the way it ended says, or else its first exception."""
    line = exception or (lines[-1].text if lines else "")
    for signature in known().signatures:
        by_memory = signature.oom_killed and observation is not None and observation.oom_killed
        by_code = not exception and observation is not None and observation.exit_code in signature.exit_codes
        if by_memory or by_code:
            return _diagnosis(signature, phase, line, {})
    code = (
        ""
        if observation is None or observation.exit_code is None
        else f" (exit code {observation.exit_code})"
    )
    return Diagnosis(
        phase=phase,
        first_fatal_line=_one_line(line),
        cause=f"not one of the failures this version knows{code}",
        fix="read the whole log: deckard-deploy logs",
    )


def _exceptions(lines: list[LogLine]) -> Iterator[str]:
    """Last lines of tracebacks, root causes first, as Python prints them; no echoes."""
    for number, line in enumerate(lines):
        if _EXCEPTION.match(line.text) and not any(echo.search(line.text) for echo in known().echoes):
            # pydantic says what is wrong on the lines below its own.
            more = lines[number + 1 : number + 3] if " validation error" in line.text else []
            yield " ".join(each.text.strip() for each in (line, *more))


def _diagnosis(signature: Signature, phase: Phase, line: str, groups: dict[str, str | None]) -> Diagnosis:
    values = {name: without_secrets(text or "")[:MAX_VALUE] for name, text in groups.items()}  # guard: F26
    return Diagnosis(
        phase=phase,
        first_fatal_line=_one_line(line),
        cause=signature.cause.format_map(values),
        fix=signature.fix.format_map(values),
        signature=signature.id,
    )


def _one_line(text: str) -> str:
    text = " ".join(without_secrets(text).split())
    return text if len(text) <= MAX_LINE else text[: MAX_LINE - 1] + "…"
