"""The dashboard of a deployment."""

import json
from typing import Any

import yaml

from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rendering import dashboard
from deckard_deploy.rendering.monitoring import (
    MonitoringSettings,
    render_monitoring,
)
from tests.support.sample_choices import choice

PLACE = MonitoringSettings(folder="/srv/mon$itoring", user="1000:1000")


def drafting() -> LaunchPlan:
    return build_plan(choice("spark", "drafter=deckard-e4b"))


def parsed(plan: LaunchPlan) -> dict[str, Any]:
    texts = render_monitoring([plan], PLACE)
    return {
        name: json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
        for name, text in texts.items()
    }


def test_dashboard_uses_the_provisioned_source() -> None:
    found = parsed(drafting())
    assert found["provisioning/datasources/deckard.yaml"]["datasources"][0]["uid"] == dashboard.SOURCE["uid"]
    places = [
        (panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found["dashboards/deckard.json"]["panels"]
    ]
    assert len(set(places)) == len(places)
