"""What `up` reads of a release, and what it decides about one that runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import cast

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.readiness import wait_until_ready
from deckard_deploy.operations.release import create_release
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.status import read_status
from deckard_deploy.operations.up import decide_for
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import Decision
from deckard_deploy.running.releases import PLAN, Release
from deckard_deploy.running.runtime import Observation, Runtime
from tests.support.fake_deployment import FakeDeployment
from tests.support.misbehaving_server import Misbehaving, Reply
from tests.support.opened_files import counting_opens
from tests.support.waiting import eventually

POLLS = 4


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FakeDeployment]:
    made = FakeDeployment(tmp_path)
    yield made
    made.end()


@pytest.fixture
def ready(world: FakeDeployment) -> Release:
    """A release that runs and is recorded as ready."""
    release, launch = create_release(world.plan(), world.releases)
    release.record(launch)
    world.runtime().start(release)
    eventually(lambda: launch.launch_id in (world.names() or []))
    world.releases.switch(release)
    release.record(launch.model_copy(update={"state": "ready"}))
    return release


def decided(world: FakeDeployment, plan: LaunchPlan) -> tuple[Decision, Release | None]:
    with open_deployment(world.state, "box", SILENT) as context:
        return decide_for(context, plan, world.state)


class Running:
    """A runtime whose engine runs and logs nothing."""

    def observe(self) -> Observation:
        return Observation(state="running")

    def poll_lines(self) -> list[str]:
        return []


def test_readiness_polls_read_no_plan(world: FakeDeployment) -> None:
    def reply(request: str, number: int) -> Reply:
        if request.startswith("POST"):
            return Reply({"choices": [{"message": {"content": "ready"}}]})
        if number < POLLS:
            return Reply(status=502)  # as behind a gateway while the engine loads
        return Reply({"data": [{"id": "t"}, {"id": "deckard-launch-1"}]})

    server = Misbehaving(reply, Random(1))
    server.listen()
    release, launch = world.stored(world.plan(port=server.port))
    release.record(launch)
    with counting_opens() as opened:
        wait_until_ready(release, cast("Runtime", Running()), directory=world.state, report=SILENT)
    server.close()
    assert opened["launch.json"] > POLLS
    assert opened["plan.json"] == 0


def test_decision_reads_running_plan_once(world: FakeDeployment, ready: Release) -> None:
    with counting_opens() as opened:
        decision, running = decided(world, ready.plan)
    assert (decision.action, running) == ("nothing", ready)
    assert opened["plan.json"] == 1


@pytest.mark.usefixtures("ready")
def test_status_reads_plan_once(world: FakeDeployment) -> None:
    with counting_opens() as opened:
        status = read_status(Selection(state_dir=world.state.root), SILENT)
    assert (status["state"], status["answers"]) == ("running", "ready")
    assert opened["plan.json"] == 1


def test_damaged_plan_of_running_release_is_refused(world: FakeDeployment, ready: Release) -> None:
    (ready.folder / PLAN).write_text(json.dumps({}))
    with pytest.raises(IntegrityError, match=r"plan\.json is missing or damaged"):
        decided(world, ready.plan)


def test_damaged_plan_is_written_again_when_nothing_runs(world: FakeDeployment) -> None:
    release, launch = create_release(world.plan(), world.releases)
    release.record(launch)
    (release.folder / PLAN).write_text("{")
    decision, running = decided(world, release.plan)
    assert (decision.action, running) == ("start", None)
    again, _ = create_release(world.plan(), world.releases)
    assert world.releases.all()[0].load().plan == again.plan
