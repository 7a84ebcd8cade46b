"""Every alert fires when it must and stays silent when it must, by Prometheus's own promtool."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rendering.alerts import ALERTS
from deckard_deploy.rendering.monitoring import KEY_FILE, MonitoringSettings, render_monitoring
from tests.e2e.alert_cases import CASES, AlertCase
from tests.support.sample_choices import choice

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"), reason="promtool is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that `monitor` writes for a plan with a drafter."""
    folder = tmp_path_factory.mktemp("monitoring")
    plan = build_plan(choice("spark", "drafter=deckard-e4b"))
    for name, text in render_monitoring([plan], MonitoringSettings(folder=str(folder), user="0:0")).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / KEY_FILE).write_text("the tool's own")
    return folder / "prometheus"


def promtool(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def unit_test(folder: Path, case: AlertCase, *, fires: bool) -> dict[str, Any]:
    """promtool's test file of a case."""
    rules = yaml.safe_load((folder / "rules.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    rule = next(rule for rule in rules if rule["alert"] == case.alert)
    expected = {
        "exp_labels": {**rule["labels"], **(case.labels or {})},
        "exp_annotations": rule["annotations"],
    }
    look = {"eval_time": case.at, "alertname": case.alert, "exp_alerts": [expected] if fires else []}
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    return {
        "rule_files": [str(folder / "rules.yml")],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": series, "alert_rule_test": [look]}],
    }


def run(folder: Path, tmp_path: Path, case: AlertCase, *, fires: bool) -> tuple[int, str]:
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(unit_test(folder, case, fires=fires)), encoding="utf-8")
    return promtool("test", "rules", file)


def test_promtool_accepts_rendered_files(folder: Path) -> None:
    code, said = promtool("check", "config", folder / "prometheus.yml")
    assert code == 0, said
    assert f"{len(ALERTS)} rules found" in said


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.about}")
def test_alert_fires_only_when_due(folder: Path, tmp_path: Path, case: AlertCase) -> None:
    code, said = run(folder, tmp_path, case, fires=case.labels is not None)
    assert code == 0, said


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=["fires", "silent"])
def test_promtool_fails_wrong_expectation(folder: Path, tmp_path: Path, case: AlertCase) -> None:
    assert run(folder, tmp_path, case, fires=case.labels is None)[0] != 0


def test_every_alert_has_both_cases() -> None:
    names = {alert.name for alert in ALERTS}
    assert {case.alert for case in CASES if case.labels is not None} == names
    assert {case.alert for case in CASES if case.labels is None} == names
