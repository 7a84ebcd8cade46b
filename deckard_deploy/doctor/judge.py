"""All rules, in the order of a deployment: machine and GPU, memory, docker, engine, then its own settings."""

from types import ModuleType

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import Finding, Rule, Severity
from deckard_deploy.doctor.rules import deployment, docker, engine, gpu, memory
from deckard_deploy.doctor.target import Target


def _rules_of(module: ModuleType) -> tuple[Rule, ...]:
    return tuple(value for value in vars(module).values() if isinstance(value, Rule))


RULES = (
    *_rules_of(gpu),
    *_rules_of(memory),
    *_rules_of(docker),
    *_rules_of(engine),
    *_rules_of(deployment),
)


def evaluate_rules(facts: HostFacts, target: Target, *, before_up: bool = False) -> tuple[Finding, ...]:
    """Return the findings on these facts, worst first. `before_up`: only the fails that stop `up`."""
    findings = []
    for rule in RULES:
        if before_up and not rule.stops_up:
            continue
        verdict = rule.judge(facts, target)
        if verdict is None or (before_up and verdict.severity is not Severity.FAIL):
            continue
        findings.append(
            Finding(
                severity=verdict.severity,
                rule=rule.id,
                what=verdict.what,
                why=rule.why,
                source=rule.source,
                fix=verdict.fix,
            )
        )
    order = list(Severity)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))
