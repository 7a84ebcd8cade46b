"""The Python API without an engine; tests/e2e/test_process_road.py drives a real one with it."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deckard_deploy import api
from deckard_deploy.operations.reporting import SilentReporter

CPU = api.Choice(profile="cpu")


def test_plan_describes_what_up_would_run(tmp_path: Path) -> None:
    planned = api.plan(CPU, state_dir=tmp_path)
    assert planned.deployment == "cpu"
    assert planned.base_url == "http://127.0.0.1:8000/v1"
    assert planned.as_json["arguments"] == list(planned.arguments)
    assert planned.fits == "fits"
    assert list(tmp_path.iterdir()) == []


def test_render_returns_a_compose_file() -> None:
    text = api.render(api.Choice(profile="spark"))
    assert "vllm" in yaml.safe_load(text)["services"]


def test_render_refuses_a_container_for_a_process() -> None:
    with pytest.raises(api.DeployError, match="runs without Docker") as refused:
        api.render(CPU, "compose")
    assert refused.value.exit_code == 2


def test_unknown_profile_raises_bad_input() -> None:
    with pytest.raises(api.DeployError, match="did you mean 'spark'") as refused:
        api.plan(api.Choice(profile="sparc"))
    assert refused.value.exit_code == 2


def test_doctor_returns_findings(tmp_path: Path) -> None:
    findings = api.doctor(state_dir=tmp_path)
    assert findings
    assert {finding.rule for finding in findings}


def test_status_without_deployments_raises_bad_input(tmp_path: Path) -> None:
    with pytest.raises(api.DeployError, match="no deployments yet"):
        api.status(state_dir=tmp_path)


def test_detection_reports_the_profile(tmp_path: Path) -> None:
    class Recorder(SilentReporter):
        lines: list[str] = []  # noqa: RUF012  one test's

        def say(self, line: str) -> None:
            self.lines.append(line)

    report = Recorder()
    api.plan(api.Choice(detect=True, settings=("name=here",)), state_dir=tmp_path, report=report)
    assert report.lines[0].startswith("profile  ")


def test_nothing_is_printed(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from deckard_deploy import api;"
        "api.plan(api.Choice(profile='spark'), state_dir=pathlib.Path(sys.argv[1]));"
        "assert 'click' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("name", [name for name in api.__all__ if inspect.isfunction(getattr(api, name))])
def test_functions_are_typed_and_documented(name: str) -> None:
    function = getattr(api, name)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(each.annotation is not inspect.Parameter.empty for each in signature.parameters.values())
