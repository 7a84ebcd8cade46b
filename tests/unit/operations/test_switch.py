"""`switch`: two deployments of one machine, of which one runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, StartFailedError
from deckard_deploy.operations import down, replicas, switch
from deckard_deploy.operations.deployments import DeploymentRef
from deckard_deploy.operations.options import Selection
from deckard_deploy.running import group as membership
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Releases
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually


@pytest.fixture
def other(fake: FakeDeployment, tmp_path: Path) -> Iterator[FakeDeployment]:
    """Yield a second deployment, `desk`, in the same state directory."""
    (tmp_path / "more").mkdir()
    second = FakeDeployment(tmp_path / "more")
    second.state = StateDir(fake.state.root)
    second.deployment = second.state.create("desk")
    second.releases = Releases(second.deployment)
    yield second
    second.end()


def ready(deployment: FakeDeployment, name: str) -> None:
    """Prove a release of the deployment, which goes on running."""
    plan = deployment.plan().model_copy(update={"deployment": name, "container_name": f"deckard-{name}"})
    deployment.proven(deployment.startable(plan))


def let_box_run_and_desk_be_stopped(
    box: FakeDeployment, desk: FakeDeployment, report: RecordingReporter
) -> None:
    ready(desk, "desk")
    down.run(Selection(desk.state.root, "desk"), report)
    ready(box, "box")


def test_switch_stops_one_and_starts_the_other(
    fake: FakeDeployment, other: FakeDeployment, report: RecordingReporter
) -> None:
    let_box_run_and_desk_be_stopped(fake, other, report)
    assert switch.run("box", "desk", fake.state.root, report) == other.plan().base_url
    assert fake.runtime().observe().state == "missing"
    assert other.names()
    assert switch.run("desk", "box", fake.state.root, report) == fake.plan().base_url
    assert other.runtime().observe().state == "missing"
    assert fake.names()


def test_first_is_started_again_if_the_other_fails(
    fake: FakeDeployment, other: FakeDeployment, report: RecordingReporter
) -> None:
    let_box_run_and_desk_be_stopped(fake, other, report)
    # Both run the engine that `desk` installed first.
    other.program.write_text(
        f'#!/bin/sh\ncase "$DECKARD_DEPLOYMENT" in *desk*) exit 1;; esac\nexec {fake.program} "$@"\n'
    )
    with pytest.raises(StartFailedError):
        switch.run("box", "desk", fake.state.root, report)
    assert "back     box" in report.lines
    assert fake.names()
    assert other.runtime().observe().state != "running"


@pytest.fixture
def desks(fake: FakeDeployment, tmp_path: Path) -> Iterator[list[FakeDeployment]]:
    """Yield the two replicas of a group, `desk`, which has no front yet."""
    made = []
    for name in ("desk-1", "desk-2"):
        (tmp_path / name).mkdir()
        one = FakeDeployment(tmp_path / name)
        one.state = StateDir(fake.state.root)
        one.deployment = one.state.create(name)
        one.releases = Releases(one.deployment)
        made.append(one)
    membership.record(fake.state.create("desk"), 2)
    yield made
    for one in made:
        one.end()


def test_group_that_starts_half_way_is_stopped_before_the_first_is_started(
    fake: FakeDeployment, desks: list[FakeDeployment], report: RecordingReporter
) -> None:
    for each in desks:
        ready(each, each.deployment.name)
    assert switch._runs(DeploymentRef(fake.state, "desk"), report)  # without its front, too
    replicas.down(Selection(fake.state.root, "desk"), report)
    assert not switch._runs(DeploymentRef(fake.state, "desk"), report)
    ready(fake, "box")
    # All run the engine that `desk-1` installed first.
    desks[0].program.write_text(
        f'#!/bin/sh\ncase "$DECKARD_DEPLOYMENT" in *desk-2*) exit 1;; esac\nexec {fake.program} "$@"\n'
    )
    with pytest.raises(StartFailedError):
        switch.run("box", "desk", fake.state.root, report)
    assert fake.names()
    assert [each.processes() for each in desks] == [[], []]


def test_interrupt_brings_first_back(
    fake: FakeDeployment, other: FakeDeployment, report: RecordingReporter
) -> None:
    let_box_run_and_desk_be_stopped(fake, other, report)
    # An engine of `desk` that loads without end; both run the one that `desk` installed first.
    other.program.write_text(
        f'#!/bin/sh\ncase "$DECKARD_DEPLOYMENT" in *desk*) exec sleep 600;; esac\nexec {fake.program} "$@"\n'
    )
    command = [sys.executable, "-m", "deckard_deploy", "switch", "box", "desk"]
    environment = {**os.environ, "DECKARD_HOME": str(fake.state.root)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as switching:
        eventually(other.processes)
        assert fake.names() is None
        switching.send_signal(signal.SIGINT)
        _, said = switching.communicate()
    assert fake.names(), said
    assert other.processes() == []
    assert switching.returncode == 130
    assert "interrupted: desk is stopped, and box is started again" in said


def test_nothing_is_stopped_for_one_that_was_never_ready(
    fake: FakeDeployment, other: FakeDeployment, report: RecordingReporter
) -> None:
    other.stored(other.plan())
    ready(fake, "box")
    before = fake.runtime().observe()
    with pytest.raises(BadInputError, match="desk was never ready"):
        switch.run("box", "desk", fake.state.root, report)
    assert fake.runtime().observe() == before


def test_dry_run_changes_nothing(
    fake: FakeDeployment, other: FakeDeployment, report: RecordingReporter
) -> None:
    let_box_run_and_desk_be_stopped(fake, other, report)
    before = fake.runtime().observe()
    assert switch.run("box", "desk", fake.state.root, report, dry_run=True) is None
    assert report.lines[-1] == "dry run: would stop box, and start desk"
    assert fake.runtime().observe() == before


@pytest.mark.parametrize(("one", "two"), [("box", "box"), ("box", "nobody"), ("nobody", "box")])
def test_unknown_name_is_refused(fake: FakeDeployment, report: RecordingReporter, one: str, two: str) -> None:
    fake.stored(fake.plan())
    with pytest.raises(BadInputError):
        switch.run(one, two, fake.state.root, report)
