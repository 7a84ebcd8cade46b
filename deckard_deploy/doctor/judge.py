"""All rules, in the order of the road: machine and GPU, memory, docker, engine, then the deployment's own settings."""

from types import ModuleType

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import Finding, Rule, Severity
from deckard_deploy.doctor.rules import deployment, docker, engine, gpu, memory
from deckard_deploy.doctor.target import Target


def _of(module: ModuleType) -> tuple[Rule, ...]:
    return tuple(value for value in vars(module).values() if isinstance(value, Rule))


RULES = (*_of(gpu), *_of(memory), *_of(docker), *_of(engine), *_of(deployment))


def judge(facts: HostFacts, target: Target, *, before_up: bool = False) -> tuple[Finding, ...]:
    """Every verdict on these facts, worst first. `before_up`: only the fails that stop `up`."""
    found = []
    for rule in RULES:
        verdict = rule.judge(facts, target) if rule.stops_up or not before_up else None
        if verdict and (verdict.severity is Severity.FAIL or not before_up):
            found.append(
                Finding(
                    severity=verdict.severity,
                    rule=rule.id,
                    what=verdict.what,
                    why=rule.why,
                    source=rule.source,
                    fix=verdict.fix,
                )
            )
    return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))
