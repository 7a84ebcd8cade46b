"""From what runs to what should run: the decision, and the steps, each of which may be the last before a kill.

What is on disk only helps; what runs is asked of the runtimes. So `up` after a kill at any instant does the right
thing: the launch is recorded as starting before anything starts, and `current` moves only when it is ready.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from deckard_deploy.errors import DeployError, EnvironmentUnfitError, IntegrityError, StartFailedError
from deckard_deploy.running.releases import FAILURE_LOG, Launch, Release, Releases
from deckard_deploy.running.runtime import MISSING, Observation, Runtime
from deckard_deploy.system.files import write_atomically
from deckard_deploy.system.ports import require_free

FAILURE_LINES = 400
Action: TypeAlias = Literal["nothing", "follow", "start", "replace"]


@dataclass(frozen=True)
class Decision:
    """What `up` has to do, and why, for a reader.

    nothing: it runs and is ready. follow: it was started already, readiness is not proven. start: nothing is in the
    way. replace: something that is not it has to be stopped first.
    """

    action: Action
    cause: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a deployment lives.

    runtimes: by kind; every kind that any of its releases uses. follow: returns when the release's recorded launch
    is proven ready, raises DeployError when it is not going to be. say: a line of progress. prepare: has what the
    release's gateway reads, in a folder that all releases of the deployment share; called before each start.
    """

    releases: Releases
    runtimes: Mapping[str, Runtime]
    follow: Callable[[Release, Runtime], None]
    say: Callable[[str], None]
    prepare: Callable[[Release], object] = lambda _: None


def decide(desired: str, observed: Observation, launch: Launch | None) -> Decision:  # noqa: PLR0911  a table of cases
    """Pure. `desired`: the plan hash; `launch`: the last recorded launch of the desired release."""
    if observed.state == "missing":
        return Decision("start", "nothing runs")
    if observed.state == "exited":
        return Decision("start", f"what ran has ended with exit code {observed.exit_code}")
    if observed.plan_hash != desired:  # guard: F39
        return Decision("replace", f"plan {observed.plan_hash or 'unknown'} runs, {desired} is wanted")
    if launch is None or observed.launch_id != launch.launch_id:
        return Decision("replace", f"plan {desired} runs, but not as the launch that was recorded")
    if observed.state == "restarting":
        return Decision("replace", f"it crashes and is restarted; restarts so far: {observed.restart_count}")
    if launch.state in ("failed", "stopped"):
        return Decision("replace", f"it runs although its launch was recorded as {launch.state}")
    if launch.state == "starting":
        return Decision("follow", "an earlier `up` started it and did not wait until it was ready")
    if observed.restart_count != launch.restart_count:
        return Decision(
            "follow", f"it was restarted since it was ready; restarts so far: {observed.restart_count}"
        )
    return Decision("nothing", f"plan {desired} runs since {launch.started_at}")


def observe(runtimes: Mapping[str, Runtime]) -> Observation:
    """What runs of the deployment under any runtime; two at once are nobody's launch."""
    found = [seen for runtime in runtimes.values() if (seen := runtime.observe()).state != "missing"]
    alive = [seen for seen in found if seen.state != "exited"]
    if len(alive) > 1:
        return Observation(state="running")
    return (alive or found or [MISSING])[0]


def bring_up(site: Site, release: Release, launch: Launch) -> Launch:
    """Stop what runs, start `release` as `launch` (state starting), follow it, make it current.

    On a DeployError: its log is kept, it is stopped, what was current before is brought back and followed, and the
    error is raised again, saying so. KeyboardInterrupt leaves everything as it is: a later `up` goes on from there.
    """
    fallback = site.releases.current()
    if release != fallback:
        site.releases.previous()  # which is going to be replaced, and may not be refused after the start
    _make_room(site, release)
    try:
        return _run(site, release, launch)
    except DeployError as error:  # guard: F42
        _give_up(site, release, error)
        raise _with_outcome(error, _bring_back(site, release, fallback)) from error.__cause__


def follow_up(site: Site, release: Release) -> Launch:
    """Prove the readiness of a launch that was started before, and make it current; failures as in bring_up."""
    fallback = site.releases.current()
    try:
        return _prove(site, release)
    except DeployError as error:
        _give_up(site, release, error)
        raise _with_outcome(error, _bring_back(site, release, fallback)) from error.__cause__


def take_down(site: Site) -> bool:
    """Stop everything of the deployment; whether there was anything. Releases and `current` stay."""
    site.releases.clear_leftovers()
    there_was = True
    with contextlib.suppress(IntegrityError):  # what a damaged record says nothing of is stopped all the same
        there_was = observe(site.runtimes).state != "missing"
    stop_all(site)
    return there_was


def what_runs(site: Site) -> str:
    """A sentence for somebody who interrupted a verb."""
    seen = observe(site.runtimes)
    if seen.state in ("missing", "exited"):
        return "nothing runs"
    state = "is ready" if _is_ready(site, seen) else "is not proven ready"
    return (
        f"plan {seen.plan_hash or 'unknown'} still runs and {state}; "
        "go on with `deckard-deploy up`, or stop it with `deckard-deploy down`"
    )


def _is_ready(site: Site, seen: Observation) -> bool:
    release = site.releases.get(seen.plan_hash) if seen.plan_hash else None
    return release is not None and decide(release.plan_hash, seen, release.launch()).action == "nothing"


def stop_all(site: Site) -> None:
    """Stop whatever runs under any runtime, and record it. Raises EnvironmentUnfitError."""
    for runtime in site.runtimes.values():
        runtime.stop()
    for release in site.releases.all():
        # What is stopped is stopped: neither a damaged record nor a full disk may say otherwise.
        with contextlib.suppress(IntegrityError, EnvironmentUnfitError):
            launch = release.launch()
            if launch and launch.state in ("starting", "ready"):
                release.record(launch.model_copy(update={"state": "stopped"}))


def _make_room(site: Site, release: Release) -> None:
    """Stop what runs, but not for a port that somebody else has. Raises EnvironmentUnfitError."""
    plan, seen = release.plan(), observe(site.runtimes)
    runs = seen.state not in ("missing", "exited")
    running = site.releases.get(seen.plan_hash) if runs and seen.plan_hash else None
    if running and running.plan().port != plan.port:
        require_free(plan.address, plan.port)
    stop_all(site)
    if not runs:  # else it is asked by the runtime, and a refusal brings back what ran
        require_free(plan.address, plan.port)


def _run(site: Site, release: Release, launch: Launch) -> Launch:
    """Start with nothing in the way, and prove it."""
    release.record(launch)
    site.prepare(release)
    instance = site.runtimes[launch.runtime].start(release)
    release.record(launch.model_copy(update={"instance_id": instance.id, "launch_id": instance.launch_id}))
    return _prove(site, release)


def _prove(site: Site, release: Release) -> Launch:
    launch = release.recorded_launch()
    runtime = site.runtimes[launch.runtime]
    site.follow(release, runtime)
    seen = runtime.observe()
    if seen.state != "running":
        raise StartFailedError(
            f"it answered, and is {seen.state} since",
            hint=f"deckard-deploy logs --name {site.releases.deployment.name}",
        )
    ready = launch.model_copy(update={"state": "ready", "restart_count": seen.restart_count})
    # First: a kill in between leaves a launch to follow, not one that nobody finds.
    site.releases.switch(release)
    release.record(ready)
    return ready


def _give_up(site: Site, release: Release, error: DeployError) -> None:
    """Keep the evidence of a failed launch, record it, and stop it: whatever a full disk says to the evidence."""
    with contextlib.suppress(EnvironmentUnfitError, IntegrityError):
        launch = release.recorded_launch()
        release.record(launch.model_copy(update={"state": "failed", "reason": error.message}))
        lines = site.runtimes[launch.runtime].tail(FAILURE_LINES)
        write_atomically(release.folder / FAILURE_LOG, "\n".join([error.message, *lines]) + "\n")
        site.say(f"log      {release.folder / FAILURE_LOG}")
    for runtime in site.runtimes.values():  # guard: F21
        runtime.stop()


def _bring_back(site: Site, failed: Release, fallback: Release | None) -> str:
    """Run what was current before; a sentence saying whether that worked."""
    if fallback is None:
        return "there was no release before it, so nothing runs"
    if fallback == failed:
        return "it is the release that ran before, so nothing runs"
    site.say(f"release {failed.plan_hash} failed: bringing {fallback.plan_hash} back")
    try:
        _run(site, fallback, relaunch(fallback))
    except DeployError as error:
        _give_up(site, fallback, error)
        return f"release {fallback.plan_hash}, which ran before, did not come back either ({error.message})"
    return f"release {fallback.plan_hash}, which ran before, is back"


def relaunch(release: Release) -> Launch:
    """The release's last launch once more, from the files that it was proven with. Raises IntegrityError."""
    launch = release.recorded_launch()
    now = datetime.now(UTC).isoformat("T", "seconds")
    fresh = {"state": "starting", "started_at": now, "instance_id": None, "restart_count": 0, "reason": None}
    return launch.model_copy(update=fresh)


def _with_outcome(error: DeployError, outcome: str) -> DeployError:
    """The same error, of the same class and exit code, saying what runs now."""
    error.message = f"{error.message}; {outcome}"
    error.args = (error.message,)
    return error
