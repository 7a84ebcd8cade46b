"""`doctor`: the target of a choice, and findings from saved facts."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.doctor import examine, refuse_unfit, select_target
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import HostPlan
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.unknown import Unknown
from tests.support.fake_deployment import FakeDeployment
from tests.support.fake_machine import machine
from tests.support.recording_reporter import RecordingReporter
from tests.support.rule_cases import FACTS
from tests.support.sample_choices import choice

__all__ = ["machine"]
HEALTHY = FACTS / "spark-healthy.json"


@pytest.mark.usefixtures("machine")
def test_empty_choice_has_no_profile(tmp_path: Path) -> None:
    target = select_target(Choice(), tmp_path, SILENT, here=True)
    assert target.profile is None
    assert target.folders.weights == tmp_path / "models"
    (tmp_path / "deckard.yaml").write_text("profile: spark\n")
    assert select_target(Choice(), tmp_path, SILENT, here=True).profile == "spark"


@pytest.mark.usefixtures("machine")
def test_saved_facts_give_the_same_findings(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    here = examine(Choice(profile="spark"), tmp_path, SILENT, saved=file)
    again = examine(Choice(profile="spark"), tmp_path, SILENT, source=file)
    assert again == here
    assert here.failed
    assert here.profile == "spark"


def test_healthy_facts_do_not_fail(tmp_path: Path) -> None:
    examination = examine(Choice(profile="spark"), tmp_path, SILENT, source=HEALTHY)
    assert examination.findings
    assert not examination.failed


def test_missing_facts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.json: No such file"):
        examine(Choice(profile="spark"), tmp_path, SILENT, source=tmp_path / "none.json")


@pytest.mark.parametrize("own", [True, False])
def test_port_of_running_deployment_is_its_own(
    fake: FakeDeployment, report: RecordingReporter, *, own: bool
) -> None:
    """`doctor` called any port the deployment's own while the deployment ran at another one."""
    plan = fake.started(fake.plan()).plan
    port = plan.port if own else plan.port + 1
    wanted = Choice(profile="cpu", settings=("name=box", f"publish.port={port}"))
    target = select_target(wanted, fake.state.root, report, here=True)
    assert target.running
    assert target.holds_port is own


def test_process_is_never_unfit(fake: FakeDeployment, report: RecordingReporter) -> None:
    planned = HostPlan(choice("cpu"), fake.plan(), Unknown("not planned"))
    refuse_unfit(planned, StateDir(fake.state.root), report, force=False)
    assert report.lines == []
