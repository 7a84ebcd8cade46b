"""Rules and their findings. Rules are pure: facts and a target in, a verdict out."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.target import Target


class Severity(StrEnum):
    """The severity of a finding, worst first. A fail stops the deployment, or already harms it."""

    FAIL = "fail"
    WARN = "warn"
    INFO = "info"
    OK = "ok"


class RuleVerdict(NamedTuple):
    """The verdict of a rule: what was found, with its value, and the command that mends it."""

    severity: Severity
    what: str
    fix: str = ""


Judge: TypeAlias = Callable[[HostFacts, Target], RuleVerdict | None]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule. when: the thresholds in words. stops_up: a fail stops `up` before it downloads anything.

    `judge` returns None when the rule does not apply, or the fact that it needs could not be read.
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
    """Make a Rule of a judging function."""

    def make(judge: Judge) -> Rule:
        return Rule(id=name, when=when, why=why, source=source, stops_up=stops_up, judge=judge)

    return make


def ok(what: str) -> RuleVerdict:
    """Return the verdict: nothing to do."""
    return RuleVerdict(Severity.OK, what)


def info(what: str, fix: str = "") -> RuleVerdict:
    """Return the verdict: worth knowing."""
    return RuleVerdict(Severity.INFO, what, fix)


def warn(what: str, fix: str) -> RuleVerdict:
    """Return the verdict: the deployment may go wrong."""
    return RuleVerdict(Severity.WARN, what, fix)


def fail(what: str, fix: str) -> RuleVerdict:
    """Return the verdict: the deployment will not run, or is already harmed."""
    return RuleVerdict(Severity.FAIL, what, fix)


def fail_if_needed(needed: bool | None, what: str, fix: str) -> RuleVerdict:  # noqa: FBT001  a fact, not a switch
    """Return FAIL if the profile needs it, WARN if no profile was named."""
    return fail(what, fix) if needed else warn(what, fix)
