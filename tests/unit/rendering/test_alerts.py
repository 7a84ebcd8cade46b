"""Alerts name a command for each problem."""

from deckard_deploy.catalog.metric_names import metric_names
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rendering import alerts
from tests.support.sample_choices import choice

NAMES = metric_names("vllm-0.19.1")


def drafting() -> LaunchPlan:
    return build_plan(choice("spark", "drafter=deckard-e4b"))


def test_every_alert_has_a_command() -> None:
    for rule in alerts.alert_group(drafting(), NAMES)["rules"]:
        assert rule["annotations"]["runbook"].startswith("deckard-deploy ")
        assert "{" not in rule["annotations"]["runbook"]


def test_no_runbook_starts_an_endpoint_otherwise() -> None:
    for rule in alerts.alert_group(drafting(), NAMES)["rules"]:
        # An `up` here would know no --engine, --image, --expose and --set of what runs.
        assert "deckard-deploy up" not in rule["annotations"]["runbook"]
