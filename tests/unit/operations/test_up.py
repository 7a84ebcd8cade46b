"""The files of a release that `up` reads, its decision for what runs, and the report of a dry run."""

import functools
import json
import socket
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

import pytest

from deckard_deploy import __version__
from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment as DeploymentSpec
from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.plan import HostPlan
from deckard_deploy.operations.readiness import wait_until_ready
from deckard_deploy.operations.release import create_release, record_asked
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.status import read_status
from deckard_deploy.operations.up import Wish, _refuse_start, decide_for, explain, run
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.running.deploy import Decision
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import PLAN, Release
from deckard_deploy.running.runtime import MISSING, Observation, Runtime
from deckard_deploy.system.unknown import Unknown
from tests.support.fake_deployment import FakeDeployment
from tests.support.misbehaving_server import Misbehaving, Reply
from tests.support.opened_files import counting_opens
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually


def decision(fake: FakeDeployment, plan: LaunchPlan) -> Decision:
    with open_deployment(fake.state, "box", SILENT, also="process") as context:
        return decide_for(context, plan, fake.state)[0]


def test_first_deployment_is_started(fake: FakeDeployment) -> None:
    assert decision(fake, fake.plan()) == Decision("start", "nothing is running")


def test_answering_release_is_left_alone(fake: FakeDeployment) -> None:
    release = fake.proven(fake.plan())
    found = decision(fake, release.plan)
    assert found.action == "nothing"
    assert found.cause.endswith(", and answers")


def test_unproven_start_is_followed(fake: FakeDeployment) -> None:
    assert decision(fake, fake.started(fake.plan()).plan).action == "follow"


def test_other_plan_replaces_release(fake: FakeDeployment) -> None:
    fake.proven(fake.plan())
    assert decision(fake, fake.plan(NUMBER="2")).action == "replace"


def test_release_of_other_launch_is_replaced(fake: FakeDeployment) -> None:
    release = fake.proven(fake.plan())
    other, launch = create_release(release.plan, fake.releases)
    other.record(launch)
    assert decision(fake, release.plan).action == "replace"


@pytest.mark.parametrize("current", [False, True])
def test_explain_names_changes_and_starts_nothing(
    fake: FakeDeployment, report: RecordingReporter, *, current: bool
) -> None:
    if current:
        fake.releases.switch(fake.stored(fake.plan())[0])
    plan = fake.plan(NUMBER="2")
    explain(plan, fake.state, report)
    assert report.lines[0] == "dry run: would start (nothing is running)"
    assert any("NUMBER" in line for line in report.lines) is current
    assert fake.processes() == []


POLLS = 4


@pytest.fixture
def ready(fake: FakeDeployment) -> Release:
    """A release that runs and is recorded as ready."""
    release, launch = create_release(fake.plan(), fake.releases)
    release.record(launch)
    fake.runtime().start(release)
    eventually(lambda: launch.launch_id in (fake.names() or []))
    fake.releases.switch(release)
    release.record(launch.model_copy(update={"state": "ready"}))
    return release


def decided(fake: FakeDeployment, plan: LaunchPlan) -> tuple[Decision, Release | None]:
    with open_deployment(fake.state, "box", SILENT) as context:
        return decide_for(context, plan, fake.state)


class Running:
    """A runtime whose engine runs and logs nothing."""

    def observe(self) -> Observation:
        return Observation(state="running")

    def poll_lines(self) -> list[str]:
        return []


def test_readiness_polls_read_no_plan(fake: FakeDeployment) -> None:
    def reply(request: str, number: int) -> Reply:
        if request.startswith("POST"):
            return Reply({"choices": [{"message": {"content": "ready"}}]})
        if number < POLLS:
            return Reply(status=502)  # as behind a gateway while the engine loads
        return Reply({"data": [{"id": "t"}, {"id": "deckard-launch-1"}]})

    server = Misbehaving(reply, Random(1))
    server.listen()
    release, launch = fake.stored(fake.plan(port=server.port))
    release.record(launch)
    with counting_opens() as opened:
        wait_until_ready(release, cast("Runtime", Running()), directory=fake.state, report=SILENT)
    server.close()
    assert opened["launch.json"] > POLLS
    assert opened["plan.json"] == 0


def test_decision_reads_running_plan_once(fake: FakeDeployment, ready: Release) -> None:
    with counting_opens() as opened:
        decision, running = decided(fake, ready.plan)
    assert (decision.action, running) == ("nothing", ready)
    assert opened["plan.json"] == 1


@pytest.mark.usefixtures("ready")
def test_status_reads_plan_once(fake: FakeDeployment) -> None:
    with counting_opens() as opened:
        status = read_status(Selection(state_dir=fake.state.root), SILENT)
    assert (status["state"], status["answers"]) == ("running", "ready")
    assert opened["plan.json"] == 1


def test_damaged_plan_of_running_release_is_refused(fake: FakeDeployment, ready: Release) -> None:
    (ready.folder / PLAN).write_text(json.dumps({}))
    with pytest.raises(IntegrityError, match=r"plan\.json is missing or damaged"):
        decided(fake, ready.plan)


def test_damaged_plan_is_written_again_when_nothing_runs(fake: FakeDeployment) -> None:
    release, launch = create_release(fake.plan(), fake.releases)
    release.record(launch)
    (release.folder / PLAN).write_text("{")
    decision, running = decided(fake, release.plan)
    assert (decision.action, running) == ("start", None)
    again, _ = create_release(fake.plan(), fake.releases)
    assert fake.releases.all()[0].load().plan == again.plan


CHOICE, OTHER_CHOICE = '{"a": 1}', '{"a": 2}'


def wished(fake: FakeDeployment, plan: LaunchPlan, wish: Wish) -> Decision:
    with open_deployment(fake.state, "box", SILENT, also="process") as context:
        return decide_for(context, plan, fake.state, wish)[0]


def test_other_plan_for_the_same_choice_is_left_alone(fake: FakeDeployment, ready: Release) -> None:
    """As after an upgrade of the tool, which plans other flags."""
    record_asked(ready, fake.releases, CHOICE)
    other = fake.plan(NUMBER="2")
    found = wished(fake, other, Wish(CHOICE))
    assert found.action == "nothing"
    assert f"plans {other.hash} for the same choice: --upgrade replaces it" in found.cause
    assert __version__ in found.cause
    assert wished(fake, other, Wish(CHOICE, upgrade=True)).action == "replace"
    assert wished(fake, other, Wish(OTHER_CHOICE)).action == "replace"


def test_release_without_recorded_choice_is_left_alone(fake: FakeDeployment, ready: Release) -> None:
    """An earlier version has started it: whether the user has asked for a change is unknown."""
    other = fake.plan(NUMBER="2")
    with pytest.raises(BadInputError, match="which recorded no choice") as raised:
        wished(fake, other, Wish(CHOICE))
    assert "--upgrade" in raised.value.hint
    assert wished(fake, other, Wish(CHOICE, upgrade=True)).action == "replace"
    assert wished(fake, ready.plan, Wish(CHOICE)).action == "nothing"


def test_dead_release_of_the_same_choice_is_replaced(fake: FakeDeployment, ready: Release) -> None:
    record_asked(ready, fake.releases, CHOICE)
    fake.runtime().stop()
    assert wished(fake, fake.plan(NUMBER="2"), Wish(CHOICE)).action == "start"


def test_otherwise_rendered_release_is_left_alone(fake: FakeDeployment, ready: Release) -> None:
    gateway = Gateway(
        image=None, program="/bin/true", user=None, folder=str(fake.deployment.gateway), exposed=False, tls=False,
        certificate=None, certificate_key=None,
    )  # fmt: skip
    plan = ready.plan.model_copy(update={"gateway": gateway})
    release = fake.releases.store(plan.hash, {PLAN: plan.model_dump_json()})
    launch = ready.recorded_launch().model_copy(update={"rendered": {"nginx.conf": "other"}})
    release.record(launch)
    state = fake.deployment.process_state
    state.write_text(state.read_text().replace(ready.plan_hash, plan.hash))
    keys = Keys(fake.state.root)
    keys.own()
    found = wished(fake, plan, Wish(CHOICE))
    assert (found.action, "writes nginx.conf otherwise: --upgrade" in found.cause) == ("nothing", True)
    assert wished(fake, plan, Wish(CHOICE, upgrade=True)).action == "replace"


def test_refused_up_leaves_no_deployment(fake: FakeDeployment, tmp_path: Path) -> None:
    plan = fake.plan()
    resolved = resolve(DeploymentSpec(), profile=library.profile("cpu"))
    state = StateDir(tmp_path / "other")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", plan.port))
        stranger.listen()
        for start in (run, run):
            with pytest.raises(EnvironmentUnfitError, match="cannot be used"):
                start(HostPlan(resolved, plan, Unknown("not planned")), state, SILENT)
            assert state.deployments() == []
            assert not state.deployment("box").folder.exists()
        with pytest.raises(EnvironmentUnfitError, match="cannot be used"):
            explain(plan, state, SILENT)
        assert not state.cache.exists()


def test_refused_up_keeps_an_earlier_deployment(fake: FakeDeployment) -> None:
    release = fake.proven(fake.plan())
    fake.runtime().stop()
    resolved = resolve(DeploymentSpec(), profile=library.profile("cpu"))
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", fake.port))
        stranger.listen()
        with pytest.raises(EnvironmentUnfitError, match="cannot be used"):
            run(HostPlan(resolved, release.plan, Unknown("not planned")), fake.state, SILENT)
    assert fake.releases.current() == release


def test_up_restores_a_lost_link(fake: FakeDeployment) -> None:
    """As after a copy of the state directory that left out links: the deployment runs, and is current again."""
    release = fake.proven(fake.startable(fake.plan()))
    before = fake.processes()
    fake.deployment.current.unlink()
    resolved = resolve(DeploymentSpec(), profile=library.profile("cpu"))
    run(HostPlan(resolved, release.plan, Unknown("not planned")), fake.state, SILENT)
    assert (fake.releases.current(), fake.processes()) == (release, before)


class Ended(Running):
    """A runtime whose engine was killed, and whose gateway runs on."""

    def __init__(self, engine: Observation) -> None:
        self._engine = engine

    def observe(self) -> Observation:
        return self._engine

    def refuse_foreign(self) -> None:
        pass

    def require_supported(self) -> None:
        pass


@pytest.mark.parametrize("removed", [False, True])
def test_own_gateway_does_not_stop_a_start(fake: FakeDeployment, *, removed: bool) -> None:
    """The gateway of an engine that was killed, or whose container was removed, still has the port."""
    release = fake.proven(fake.startable(fake.plan()))
    fake.runtime().stop()
    engine = Observation(state="exited", plan_hash=release.plan_hash)
    if removed:
        engine = MISSING
    with socket.socket() as gateway, open_deployment(fake.state, "box", SILENT) as context:
        gateway.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        gateway.bind(("127.0.0.1", fake.port))
        gateway.listen()
        for state in ("running", "exited"):
            ended = cast("Runtime", Ended(replace(engine, gateway=state)))
            start = functools.partial(
                _refuse_start, replace(context, runtimes={"process": ended}), release.plan, fake.state
            )
            if state == "running":
                start()
            else:
                with pytest.raises(EnvironmentUnfitError, match="cannot be used"):
                    start()
