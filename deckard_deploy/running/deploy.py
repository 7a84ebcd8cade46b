"""The deployment of a release: the decision, and the steps. A kill may follow each of them.

The runtimes report what runs; the records on disk only add to that. A launch is recorded as starting before
anything starts, and `current` moves only when the launch is ready. So `up` continues correctly after a kill
at any instant.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from deckard_deploy.errors import DeployError, EnvironmentUnfitError, IntegrityError, StartFailedError
from deckard_deploy.running.releases import FAILURE_LOG, Launch, Release, ReleaseFolder, Releases
from deckard_deploy.running.runtime import MISSING, Observation, Runtime
from deckard_deploy.system.files import write_atomically
from deckard_deploy.system.ports import require_free

FAILURE_LINES = 400
GATEWAY_HEADING = "--- the gateway's log"
GATEWAY_TIMEOUT_S, GATEWAY_SETTLED_S, _POLL_S = 15.0, 1.0, 0.1
Action: TypeAlias = Literal["nothing", "follow", "gateway", "start", "replace"]


@dataclass(frozen=True)
class Decision:
    """The action that `up` must take, and its cause in words.

    nothing: the release runs and is ready.
    follow: it was started already, but its readiness is not proven.
    gateway: the engine runs, and its gateway has to be started again.
    start: nothing has to be stopped first.
    replace: something else has to be stopped first.
    unless_answers: it is the recorded launch, and has to be replaced only if it does not answer.
    """

    action: Action
    cause: str
    unless_answers: bool = False


@dataclass(frozen=True, kw_only=True)
class DeploymentContext:
    """All that the steps need of one deployment.

    runtimes: by kind; every kind that one of the releases uses.
    follow: returns when the release's recorded launch is proven ready; raises DeployError when it cannot
    become so.
    say: receives a line of progress.
    prepare: writes the files of the release's gateway; called before each start, because all releases of the
    deployment share the folder.
    """

    releases: Releases
    runtimes: Mapping[str, Runtime]
    follow: Callable[[Release, Runtime], None]
    say: Callable[[str], None]
    prepare: Callable[[Release], object] = lambda _: None


def decide(  # noqa: PLR0911  a table of cases
    desired: str, observed: Observation, launch: Launch | None
) -> Decision:
    """Return the action. Pure. desired: the plan hash. launch: the last recorded launch of that release."""
    if observed.state == "missing":
        return Decision("start", "nothing is running")
    if observed.state == "exited":
        return Decision("start", f"what ran has ended with exit code {observed.exit_code}")
    if observed.plan_hash != desired:  # guard: F39
        return Decision("replace", f"plan {observed.plan_hash or 'unknown'} runs, {desired} is wanted")
    if launch is None or observed.launch_id != launch.launch_id:
        return Decision("replace", f"plan {desired} runs, but not as the launch that was recorded")
    if observed.state == "restarting":
        return Decision("replace", f"it crashes and is restarted; restarts so far: {observed.restart_count}")
    if observed.gateway not in (None, "running"):  # guard: F62b
        return Decision("gateway", f"its gateway is {observed.gateway}")
    if launch.state in ("failed", "stopped"):
        cause = f"it runs although its launch was recorded as {launch.state}"
        return Decision("replace", cause, unless_answers=launch.state == "failed")
    if launch.state == "starting":
        return Decision("follow", "an earlier `up` started it and did not wait until it was ready")
    if observed.restart_count != launch.restart_count:
        return Decision(
            "follow", f"it was restarted since it was ready; restarts so far: {observed.restart_count}"
        )
    return Decision("nothing", f"plan {desired} runs since {launch.started_at}")


def observe(runtimes: Mapping[str, Runtime]) -> Observation:
    """Return the state of the deployment under all runtimes. Two that run at once belong to no launch."""
    observations = [runtime.observe() for runtime in runtimes.values()]
    found = [each for each in observations if each.state != "missing"]
    alive = [each for each in found if each.state != "exited"]
    if len(alive) > 1:
        return Observation(state="running")
    if alive:
        return alive[0]
    if found:
        return found[0]
    return next((each for each in observations if each.gateway), MISSING)


def deploy(site: DeploymentContext, release: ReleaseFolder, launch: Launch) -> Launch:
    """Stop what runs, start `release` as `launch` (state starting), follow it, and make it current.

    On a DeployError: keep the log, stop the release, start and follow the one that was current before, and
    raise the error again with the outcome added. KeyboardInterrupt changes nothing: a later `up` resumes.
    """
    fallback = site.releases.current()
    if release != fallback:
        site.releases.previous()  # raises now, before the start, if the link that will be replaced is damaged
    loaded = release.load()
    stays_stopped = fallback is not None and fallback != release and _was_stopped(fallback)
    _stop_current(site, loaded)
    try:
        return _run(site, loaded, launch)
    except DeployError as error:  # guard: F42
        _record_failure(site, release, error)
        if fallback and stays_stopped:
            outcome = f"release {fallback.plan_hash} stays stopped, as `down` left it"
            raise _with_outcome(error, outcome) from error.__cause__
        raise _with_outcome(error, _roll_back(site, release, fallback)) from error.__cause__


def _was_stopped(release: ReleaseFolder) -> bool:
    launch = release.launch_or_none()
    return launch is not None and launch.state == "stopped"


def resume(site: DeploymentContext, release: ReleaseFolder) -> Launch:
    """Prove the readiness of an earlier launch, and make it current. Fails as `deploy` does."""
    fallback = site.releases.current()
    try:
        return _prove(site, release)
    except DeployError as error:
        _record_failure(site, release, error)
        raise _with_outcome(error, _roll_back(site, release, fallback)) from error.__cause__


def restore_gateway(site: DeploymentContext, release: ReleaseFolder) -> None:
    """Start the gateway of the running release again. The engine is not affected, even if that fails.

    Raises EnvironmentUnfitError, StartFailedError.
    """
    loaded = release.load()
    site.prepare(loaded)
    runtime = site.runtimes[release.recorded_launch().runtime]
    runtime.start_gateway(loaded)
    now = time.monotonic()
    deadline, since = now + GATEWAY_TIMEOUT_S, now
    while time.monotonic() - since < GATEWAY_SETTLED_S:
        if runtime.observe().gateway != "running":
            since = time.monotonic()
        if since > deadline:
            lines = runtime.tail_gateway(1)
            raise StartFailedError(
                f"the gateway does not start{': ' if lines else ''}{''.join(lines)}; the engine still runs",
                hint=f"deckard-deploy logs --name {site.releases.deployment.name}",
            )
        time.sleep(_POLL_S)


def take_down(site: DeploymentContext) -> bool:
    """Stop everything of the deployment. Return False if there was nothing. Releases and `current` stay."""
    site.releases.clear_leftovers()
    try:
        existed = observe(site.runtimes).state != "missing"
    except IntegrityError:  # a damaged record; its processes are stopped all the same
        existed = True
    stop_all(site)
    return existed


def describe_running(site: DeploymentContext) -> str:
    """Return a sentence about the running release, for a user who interrupted a verb."""
    observed = observe(site.runtimes)
    if observed.state in ("missing", "exited"):
        return "nothing is running"
    state = "is ready" if _is_ready(site, observed) else "is not proven ready"
    name = site.releases.deployment.name
    return (
        f"plan {observed.plan_hash or 'unknown'} still runs and {state}; "
        f"continue with `deckard-deploy wait --name {name}`, or stop it with `deckard-deploy down --name {name}`"
    )


def _is_ready(site: DeploymentContext, observed: Observation) -> bool:
    if not observed.plan_hash:
        return False
    release = site.releases.get(observed.plan_hash)
    return release is not None and decide(release.plan_hash, observed, release.launch()).action == "nothing"


def stop_all(site: DeploymentContext) -> None:
    """Stop everything under all runtimes, and record that. Raises EnvironmentUnfitError."""
    for runtime in site.runtimes.values():
        runtime.stop()
    for release in site.releases.all():
        # All of it is stopped by now, so neither a damaged record nor a full disk is an error.
        launch = release.launch_or_none()
        if launch and launch.state in ("starting", "ready"):
            release.try_record(launch.model_copy(update={"state": "stopped"}))


def _stop_current(site: DeploymentContext, release: Release) -> None:
    """Stop what runs, unless another process holds the port of `release`. Raises EnvironmentUnfitError."""
    plan = release.plan
    observed = observe(site.runtimes)
    runs = observed.state not in ("missing", "exited")
    running = None
    if runs and observed.plan_hash:
        running = site.releases.get(observed.plan_hash)
    if running and running != release and running.load().plan.port != plan.port:
        require_free(plan.address, plan.port)
    stop_all(site)
    if not runs:  # otherwise the runtime checks the port, and a failure rolls back
        require_free(plan.address, plan.port)


def _run(site: DeploymentContext, release: ReleaseFolder, launch: Launch) -> Launch:
    """Start the release while nothing else runs, and prove its readiness."""
    release.record(launch)
    loaded = release.load()
    site.prepare(loaded)
    instance = site.runtimes[launch.runtime].start(loaded)
    release.record(launch.model_copy(update={"instance_id": instance.id, "launch_id": instance.launch_id}))
    return _prove(site, loaded)


def _prove(site: DeploymentContext, release: ReleaseFolder) -> Launch:
    site.follow(release.load(), site.runtimes[release.recorded_launch().runtime])
    return record_ready(site, release)


def record_ready(site: DeploymentContext, release: ReleaseFolder) -> Launch:
    """Make a release current whose endpoint has answered. Raises StartFailedError if it has ended since."""
    launch = release.recorded_launch()
    observed = site.runtimes[launch.runtime].observe()
    if observed.state != "running":
        raise StartFailedError(
            f"it answered, and is {observed.state} since",
            hint=f"deckard-deploy logs --name {site.releases.deployment.name}",
        )
    ready = launch.model_copy(update={"state": "ready", "restart_count": observed.restart_count})
    # The link first: a kill in between leaves a launch that the next `up` follows, not one that no link
    # names.
    site.releases.switch(release)
    release.record(ready)
    return ready


def _record_failure(site: DeploymentContext, release: ReleaseFolder, error: DeployError) -> None:
    """Record a failed launch, keep its log, and stop it, even if a full disk loses record and log."""
    with contextlib.suppress(EnvironmentUnfitError, IntegrityError):
        launch = release.recorded_launch()
        release.record(launch.model_copy(update={"state": "failed", "reason": error.message}))
        write_atomically(
            release.folder / FAILURE_LOG, failure_log(site.runtimes[launch.runtime], error.message)
        )
        site.say(f"log      {release.folder / FAILURE_LOG}")
    for runtime in site.runtimes.values():  # guard: F21
        runtime.stop()


def failure_log(runtime: Runtime, reason: str) -> str:
    """Return the text of failure.log: the reason, and the last lines of the engine and of its gateway."""
    engine = runtime.tail(FAILURE_LINES)
    gateway = runtime.tail_gateway(FAILURE_LINES)
    if not gateway:
        return "\n".join([reason, *engine]) + "\n"
    return "\n".join([reason, *engine, GATEWAY_HEADING, *gateway]) + "\n"


def _roll_back(site: DeploymentContext, failed: ReleaseFolder, fallback: ReleaseFolder | None) -> str:
    """Run the release that was current before. Return a sentence about the outcome."""
    if fallback is None:
        return "there is no earlier release, so nothing is running"
    if fallback == failed:
        return "it is the release that ran before, so nothing is running"
    site.say(f"release {failed.plan_hash} failed: rolling back to {fallback.plan_hash}")
    try:
        _run(site, fallback, relaunch(fallback))
    except DeployError as error:
        _record_failure(site, fallback, error)
        return f"release {fallback.plan_hash} failed to start again too ({error.message})"
    return f"release {fallback.plan_hash} is running again"


def relaunch(release: ReleaseFolder) -> Launch:
    """Return a new launch like the release's last one, from the same files. Raises IntegrityError."""
    launch = release.recorded_launch()
    now = datetime.now(UTC).isoformat("T", "seconds")
    fresh = {"state": "starting", "started_at": now, "instance_id": None, "restart_count": 0, "reason": None}
    return launch.model_copy(update=fresh)


def _with_outcome(error: DeployError, outcome: str) -> DeployError:
    """Return the same error, with the same class and exit code, and with the outcome in its message."""
    error.message = f"{error.message}; {outcome}"
    error.args = (error.message,)
    return error
