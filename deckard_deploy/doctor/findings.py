"""What a rule is and what it says. Rules are pure: facts and a target in, a verdict out."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.target import Target


class Severity(StrEnum):
    """Worst first. A fail is what would stop the deployment, or already harms it."""

    FAIL = "fail"
    WARN = "warn"
    INFO = "info"
    OK = "ok"


class Verdict(NamedTuple):
    """What was found, with the value, and what to type next."""

    severity: Severity
    what: str
    fix: str = ""


Judge: TypeAlias = Callable[[HostFacts, Target], Verdict | None]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`when` says the thresholds in words. `stops_up`: its fails stop `up` before anything is spent.

    `judge` gives None when the rule does not apply, or the fact that it needs was not read.
    """

    id: str
    when: str
    why: str
    source: str
    stops_up: bool
    judge: Judge


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule's verdict on one host."""

    severity: Severity
    rule: str
    what: str
    why: str
    source: str
    fix: str


def rule(name: str, *, when: str, why: str, source: str, stops_up: bool = False) -> Callable[[Judge], Rule]:
    """Make a rule of a judging function."""

    def made(judge: Judge) -> Rule:
        return Rule(id=name, when=when, why=why, source=source, stops_up=stops_up, judge=judge)

    return made


def ok(what: str) -> Verdict:
    """Nothing to do."""
    return Verdict(Severity.OK, what)


def info(what: str, fix: str = "") -> Verdict:
    """Worth knowing."""
    return Verdict(Severity.INFO, what, fix)


def warn(what: str, fix: str) -> Verdict:
    """It may go wrong."""
    return Verdict(Severity.WARN, what, fix)


def fail(what: str, fix: str) -> Verdict:
    """It will not run, or harms already."""
    return Verdict(Severity.FAIL, what, fix)


def fail_if(needed: bool | None, what: str, fix: str) -> Verdict:  # noqa: FBT001  a fact, not a switch
    """A fail where it is needed; a warning while no profile says whether it is."""
    return fail(what, fix) if needed else warn(what, fix)


def version(text: str | None) -> tuple[int, ...]:
    """`580.95.05` -> (580, 95, 5); empty when it is no version."""
    numbers = []
    for part in (text or "").split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
