import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, StartFailedError, TimedOutError
from deckard_deploy.running.deploy import (
    DeploymentContext,
    decide,
    deploy,
    describe_running,
    observe,
    relaunch,
    resume,
    take_down,
)
from deckard_deploy.running.process.supervision import kill_tagged, server_tag
from deckard_deploy.running.releases import Launch, Release
from deckard_deploy.running.runtime import MISSING, Observation, Runtime
from tests.support.fake_deployment import FakeDeployment
from tests.support.opened_files import counting_opens
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow  # real processes or servers, and their waits

LAUNCH = Launch(
    launch_id="l1",
    started_at="2026-01-01",
    state="ready",
    runtime="process",
    base_url="http://127.0.0.1:1/v1",
)
RUNS = Observation(state="running", plan_hash="aa", launch_id="l1", instance_id="1")


def seen(**changes: Any) -> Observation:
    return replace(RUNS, **changes)


def launch(**changes: object) -> Launch:
    return LAUNCH.model_copy(update=changes)


@pytest.mark.parametrize(
    ("observed", "recorded", "action", "cause"),
    [
        (MISSING, None, "start", "nothing is running"),
        (MISSING, LAUNCH, "start", "nothing is running"),
        (seen(state="exited", exit_code=3), LAUNCH, "start", "exit code 3"),
        (RUNS, LAUNCH, "nothing", "plan aa runs since 2026-01-01"),
        (RUNS, launch(state="starting"), "follow", "an earlier `up` started it"),
        (seen(restart_count=2), launch(restart_count=2), "nothing", "runs since"),
        (seen(restart_count=2), LAUNCH, "follow", "restarted since it was ready; restarts so far: 2"),
        (seen(restart_count=0), launch(restart_count=1), "follow", "restarted since it was ready"),
        (
            seen(state="restarting", restart_count=1),
            LAUNCH,
            "replace",
            "crashes and is restarted; restarts so far: 1",
        ),
        (seen(plan_hash="bb"), LAUNCH, "replace", "plan bb runs, aa is wanted"),
        (seen(plan_hash="bb", state="restarting"), LAUNCH, "replace", "plan bb runs, aa is wanted"),
        (seen(plan_hash=None, launch_id=None), LAUNCH, "replace", "plan unknown runs"),
        (seen(launch_id="l0"), LAUNCH, "replace", "not as the launch that was recorded"),
        (RUNS, None, "replace", "not as the launch that was recorded"),
        (RUNS, launch(state="failed"), "replace", "recorded as failed"),
        (RUNS, launch(state="stopped"), "replace", "recorded as stopped"),
    ],
)
def test_decide_action_and_cause(observed, recorded, action, cause):
    decision = decide("aa", observed, recorded)
    assert decision.action == action
    assert cause in decision.cause


class FixedRuntime:
    """A runtime with one fixed observation."""

    def __init__(self, observation: Observation) -> None:
        self.observation = observation

    def observe(self) -> Observation:
        return self.observation


@pytest.mark.parametrize(
    ("docker", "process", "result"),
    [
        (MISSING, MISSING, MISSING),
        (MISSING, RUNS, RUNS),
        (RUNS, seen(state="exited"), RUNS),
        (seen(state="exited"), RUNS, RUNS),
        (seen(state="exited"), MISSING, seen(state="exited")),
        (RUNS, seen(launch_id="l2"), Observation(state="running")),
    ],
)
def test_observe_joins_two_runtimes(docker, process, result):
    runtimes = cast("dict[str, Runtime]", {"docker": FixedRuntime(docker), "process": FixedRuntime(process)})
    assert observe(runtimes) == result


def follow_until_listed(release: Release, runtime: Runtime) -> None:
    """Follow as the program does, simplified: until the launch is listed under its own name, or has ended."""
    launch = release.recorded_launch()
    port = release.plan.port

    def settled() -> bool:
        if runtime.observe().state == "exited":
            raise StartFailedError("the engine stopped", hint="look")
        return launch.launch_id in (FakeDeployment.names_on(port) or [])

    eventually(settled)


def context_of(
    fake: FakeDeployment, follow: Callable[[Release, Runtime], None] = follow_until_listed
) -> DeploymentContext:
    return DeploymentContext(
        releases=fake.releases, runtimes={"process": fake.runtime()}, follow=follow, say=lambda _: None
    )


def test_deploy_makes_current_and_down_stops_all(fake):
    release, launch = fake.stored(fake.plan())
    ready = deploy(context_of(fake), release, launch)
    assert release.launch() == ready
    assert (ready.state, ready.launch_id) == ("ready", launch.launch_id)
    assert fake.releases.current() == release
    observed = observe(context_of(fake).runtimes)
    assert observed.instance_id == ready.instance_id
    assert decide(release.plan_hash, observed, ready).action == "nothing"
    assert f"plan {release.plan_hash} still runs and is ready" in describe_running(context_of(fake))
    assert take_down(context_of(fake))
    assert describe_running(context_of(fake)) == "nothing is running"
    assert not take_down(context_of(fake))
    assert fake.processes() + fake.supervisors() == []
    assert release.recorded_launch().state == "stopped"
    assert fake.releases.current() == release


def test_take_down_works_with_damaged_record(fake):
    deploy(context_of(fake), *fake.stored(fake.plan()))
    fake.deployment.process_state.write_text("{")
    with pytest.raises(IntegrityError, match="is damaged"):
        observe(context_of(fake).runtimes)
    assert take_down(context_of(fake))
    assert fake.processes() + fake.supervisors() == []
    assert not take_down(context_of(fake))


def test_new_plan_replaces_old(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    new, launch = fake.stored(fake.plan(FAKE_NEW="1"), "deckard-launch-2")
    deploy(context_of(fake), new, launch)
    assert fake.names() == ["t", "deckard-launch-2"]
    assert (fake.releases.current(), fake.releases.previous()) == (new, old)
    assert (old.recorded_launch().state, new.recorded_launch().state) == ("stopped", "ready")
    assert len(fake.processes()) == 2


def test_failed_start_rolls_back(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    new, launch = fake.stored(fake.plan(FAKE_MODE="crash"), "deckard-launch-2")
    with pytest.raises(StartFailedError) as caught:
        deploy(context_of(fake), new, launch)
    assert caught.value.message == f"the engine stopped; release {old.plan_hash} is running again"
    assert (str(caught.value), caught.value.hint) == (caught.value.message, "look")
    assert fake.names() == ["t", "deckard-launch-1"]
    assert (fake.releases.current(), old.recorded_launch().state) == (old, "ready")
    assert (new.recorded_launch().state, new.recorded_launch().reason) == ("failed", "the engine stopped")
    assert "RuntimeError: it is made to fail" in new.text("failure.log")


def test_failed_release_is_stopped_on_full_disk(fake):
    deploy(context_of(fake), *fake.stored(fake.plan()))
    broken, launch = fake.stored(fake.plan(ANOTHER="plan"), "deckard-launch-2")

    def follow(release, runtime):
        if release != broken:
            return follow_until_listed(release, runtime)
        (release.folder / "launch.json").unlink()
        (release.folder / "launch.json").mkdir()  # so that no file can replace it
        raise StartFailedError("the disk is full")

    with pytest.raises(StartFailedError, match=r"the disk is full; release .* is running again"):
        deploy(context_of(fake, follow), broken, launch)
    assert "deckard-launch-1" in fake.names()


@pytest.mark.parametrize("name", ["current", "previous"])
def test_folder_in_place_of_link_is_refused(fake, name):
    """`scp -r` of a state directory from another machine leaves such folders."""
    deploy(context_of(fake), *fake.stored(fake.plan()))
    take_down(context_of(fake))
    link = fake.deployment.folder / name
    link.unlink(missing_ok=True)
    link.mkdir()
    with pytest.raises(IntegrityError, match=f"{name} is not a link to a release"):
        deploy(context_of(fake), *fake.stored(fake.plan(ANOTHER="plan"), "deckard-launch-2"))
    assert fake.processes() == []
    assert not take_down(context_of(fake))


def test_current_restarts_with_damaged_previous(fake):
    release, launch = fake.stored(fake.plan())
    deploy(context_of(fake), release, launch)
    (fake.deployment.folder / "previous").mkdir()
    deploy(context_of(fake), release, relaunch(release))
    assert fake.names() is not None


def test_engine_that_ends_during_probe_is_not_ready(fake):
    def follow(release, runtime):
        follow_until_listed(release, runtime)
        kill_tagged(server_tag(fake.deployment.folder))
        eventually(lambda: runtime.observe().state == "exited")

    with pytest.raises(StartFailedError, match="it answered, and is exited since"):
        deploy(context_of(fake, follow), *fake.stored(fake.plan()))
    assert fake.releases.current() is None


def test_failed_first_start_leaves_nothing(fake):
    release, launch = fake.stored(fake.plan(FAKE_MODE="crash"))
    with pytest.raises(StartFailedError, match="there is no earlier release, so nothing is running"):
        deploy(context_of(fake), release, launch)
    assert fake.processes() + fake.supervisors() == []
    assert fake.releases.current() is None


def test_failed_restart_of_current_does_not_roll_back(fake):
    release, launch = fake.stored(fake.plan())
    deploy(context_of(fake), release, launch)

    def refuse(*_):
        raise TimedOutError("nothing advanced for 60 s")

    with pytest.raises(
        TimedOutError, match="it is the release that ran before, so nothing is running"
    ) as caught:
        deploy(context_of(fake, refuse), release, launch)
    assert caught.value.exit_code == 7
    assert fake.processes() == []


def test_each_start_prepares_its_gateway(fake):
    """Releases share the gateway's folder, so a rollback prepares it again before the start."""
    prepared: list[str] = []

    def prepare(release: Release) -> None:
        assert fake.processes() == []
        prepared.append(release.plan_hash)

    context = replace(context_of(fake), prepare=prepare)
    old, launch = fake.stored(fake.plan())
    deploy(context, old, launch)
    new, launch = fake.stored(fake.plan(FAKE_MODE="crash"), "deckard-launch-2")
    with pytest.raises(StartFailedError, match="is running again"):
        deploy(context, new, launch)
    assert prepared == [old.plan_hash, new.plan_hash, old.plan_hash]


def test_damaged_release_is_taken_down(fake):
    release, launch = fake.stored(fake.plan())
    deploy(context_of(fake), release, launch)
    (release.folder / "plan.json").write_text("{")
    assert take_down(context_of(fake))
    assert fake.processes() + fake.supervisors() == []
    assert release.recorded_launch().state == "stopped"


def test_damaged_release_stops_nothing_that_runs(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    before = fake.processes()
    damaged, launch = fake.stored(fake.plan(N="1"), "deckard-launch-2")
    (damaged.folder / "plan.json").write_text("{")
    folder = fake.releases.get(damaged.plan_hash)
    with pytest.raises(IntegrityError, match=r"plan\.json is missing or damaged"):
        deploy(context_of(fake), folder, launch)
    assert (fake.processes(), old.recorded_launch().state) == (before, "ready")


def test_damaged_fallback_is_reported(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    fake.runtime().stop()
    (old.folder / "plan.json").write_text("{")
    new, launch = fake.stored(fake.plan(FAKE_MODE="crash"), "deckard-launch-2")
    with pytest.raises(
        StartFailedError, match=r"failed to start again too \(.*plan\.json is missing or damaged"
    ):
        deploy(context_of(fake), new, launch)
    assert old.recorded_launch().state == "failed"


def test_release_that_the_user_stopped_stays_stopped(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    take_down(context_of(fake))
    new, launch = fake.stored(fake.plan(FAKE_MODE="crash"), "deckard-launch-2")
    with pytest.raises(StartFailedError, match=f"release {old.plan_hash} stays stopped, as `down` left it"):
        deploy(context_of(fake), new, launch)
    assert fake.runtime().observe().state == "missing"
    assert old.recorded_launch().state == "stopped"


def test_deploy_reads_no_plan_again(fake):
    release, launch = fake.stored(fake.plan())
    with counting_opens() as opened:
        deploy(context_of(fake), release, launch)
    assert opened["launch.json"] > 0
    assert opened["plan.json"] == 0


def test_failed_rollback_is_reported(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    new, launch = fake.stored(fake.plan(FAKE_MODE="crash"), "deckard-launch-2")

    def break_then_refuse(release, runtime):
        fake.program.unlink(missing_ok=True)
        follow_until_listed(release, runtime)

    with pytest.raises(
        StartFailedError, match=r"failed to start again too \(the server could not be started"
    ):
        deploy(context_of(fake, break_then_refuse), new, launch)
    assert fake.processes() + fake.supervisors() == []
    assert old.recorded_launch().state == "failed"


def test_used_port_stops_nothing(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    before = fake.processes()
    taken = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "-b", "127.0.0.1", str(taken)], stderr=-3
    ) as other:
        eventually(lambda: FakeDeployment.answers(taken))
        new, launch = fake.stored(fake.plan(port=taken), "deckard-launch-2")
        with pytest.raises(EnvironmentUnfitError, match=f"pid {other.pid}"):
            deploy(context_of(fake), new, launch)
        other.kill()
    assert fake.processes() == before
    assert old.recorded_launch().state == "ready"


def test_up_resumes_after_interrupt(fake):
    release, launch = fake.stored(fake.plan())

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(context_of(fake, interrupted), release, launch)
    before = fake.processes()
    assert release.recorded_launch().state == "starting"
    assert f"plan {release.plan_hash} still runs and is not proven ready" in describe_running(
        context_of(fake)
    )
    assert decide(release.plan_hash, observe(context_of(fake).runtimes), release.launch()).action == "follow"
    ready = resume(context_of(fake), release)
    assert ready.state == "ready"
    assert {process.pid for process in before} <= {process.pid for process in fake.processes()}
    assert fake.releases.current() == release


def test_failed_resume_rolls_back(fake):
    old, launch = fake.stored(fake.plan())
    deploy(context_of(fake), old, launch)
    new, launch = fake.stored(fake.plan(FAKE_MODE="crash"), "deckard-launch-2")
    fake.runtime().stop()
    new.record(launch)
    fake.runtime().start(new)
    with pytest.raises(StartFailedError, match=f"release {old.plan_hash} is running again"):
        resume(context_of(fake), new)
    assert fake.names() == ["t", "deckard-launch-1"]
