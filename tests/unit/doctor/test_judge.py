"""Every rule finds its fault, accepts a host without it, and never raises."""

import json
from itertools import product

import pytest

from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import Severity
from deckard_deploy.doctor.judge import RULES, evaluate_rules
from tests.support.rule_cases import ANY, CASES, FACTS, RuleCase, facts, target

BY_ID = {rule.id: rule for rule in RULES}
ALL = [(rule, case) for rule, cases in CASES.items() for case in cases]


def test_every_rule_has_cases_and_a_unique_id():
    assert sorted(CASES) == sorted(rule.id for rule in RULES)
    assert len(BY_ID) == len(RULES)


@pytest.mark.parametrize(
    ("rule", "case"), ALL, ids=[f"{rule}-{case.severity}-{case.says[:20]}" for rule, case in ALL]
)
def test_rule_finds_the_fault_and_accepts_the_rest(rule: str, case: RuleCase):
    found = BY_ID[rule].judge(case.facts, case.target)
    assert found is not None
    assert (found.severity, case.says in found.what) == (case.severity, True), found
    content = BY_ID[rule].judge(case.content_facts, case.content_target)
    assert content is not None
    assert (content.severity, content.fix) == (Severity.OK, ""), content


@pytest.mark.parametrize(("rule", "case"), ALL, ids=[rule for rule, _ in ALL])
def test_finding_has_reason_source_and_fix(rule: str, case: RuleCase):
    (finding,) = (each for each in evaluate_rules(case.facts, case.target) if each.rule == rule)
    assert finding.what
    assert finding.why
    assert finding.source
    assert finding.fix or finding.severity == "info"
    assert "\n" not in finding.what + finding.why + finding.fix


def test_every_documented_severity_has_a_case():
    """`when` names what a rule can say; a threshold without a case would be an untested one."""
    for rule in RULES:
        named = {word for word in ("fail", "warn", "info") if f"{word}:" in rule.when}
        assert named == {case.severity for case in CASES[rule.id]}, rule.id


@pytest.mark.parametrize("of", [path.stem for path in FACTS.glob("*.json")])
@pytest.mark.parametrize("profile", ["spark", "b200", "thor", "cpu", None])
def test_any_facts_can_be_judged_for_any_profile(of: str, profile: str | None):
    assert evaluate_rules(facts(of=of), target(profile) if profile else ANY)


@pytest.mark.parametrize("profile", ["spark", "b200", "cpu", None])
def test_unknown_facts_give_no_fail_or_warning(profile: str | None):
    """A host of which nothing could be read gets no fail from a fact that is not there."""
    found = evaluate_rules(HostFacts(), target(profile) if profile else ANY)
    assert [finding.rule for finding in found if finding.severity in ("fail", "warn")] == []


@pytest.mark.parametrize(
    "name", sorted(json.loads((FACTS / "spark-healthy.json").read_text()).keys() - {"format"})
)
def test_any_single_fact_may_be_missing(name: str):
    data = json.loads((FACTS / "spark-healthy.json").read_text())
    del data[name]
    found = evaluate_rules(HostFacts.model_validate_json(json.dumps(data)), target())
    assert {finding.severity for finding in found} <= {"ok", "info"}


def test_findings_are_sorted_worst_first():
    order = list(Severity)
    for of, profile in product(("spark-page-cache", "laptop-no-docker"), ("spark", "b200")):
        ranks = [order.index(finding.severity) for finding in evaluate_rules(facts(of=of), target(profile))]
        assert ranks == sorted(ranks)


def test_before_up_reports_only_stopping_fails():
    broken = facts({"architecture": "x86_64", "memory": {"pressure_full_avg10": 50.0, "swap_free_kib": 0}})
    assert [finding.rule for finding in evaluate_rules(broken, target()) if finding.severity == "fail"] == [
        "architecture",
        "memory-pressure",
    ]
    assert [finding.rule for finding in evaluate_rules(broken, target(), before_up=True)] == ["architecture"]
    assert evaluate_rules(facts(), target(), before_up=True) == ()


def test_rules_that_stop_up_are_these():
    assert [rule.id for rule in RULES if rule.stops_up] == [
        "architecture",
        "gpu",
        "gpu-state",
        "mig",
        "fabric",
        "gpu-model",
        "driver",
        "gpu-processes",
        "memory-available",
        "footprint",
        "docker",
        "compose",
        "gpu-runtime",
        "image-platform",
        "disk",
        "port",
    ]


def test_cpu_profile_needs_neither_docker_nor_gpu():
    found = {finding.rule: finding for finding in evaluate_rules(facts(of="laptop-no-docker"), target("cpu"))}
    assert found.keys().isdisjoint({"docker", "compose", "gpu", "gpu-runtime", "driver"})
    assert not [finding for finding in found.values() if finding.severity == "fail"]
