"""One deployment of this host, wired: its releases, its runtimes, and how a start is followed."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType

from deckard_deploy.cli.drafter import prove_drafter
from deckard_deploy.cli.gateway import access, have_gateway
from deckard_deploy.cli.output import echo_command, say
from deckard_deploy.cli.patched import attest, attest_plugin
from deckard_deploy.cli.plan_reality import kv_cache_line, memory_line, start_memory
from deckard_deploy.cli.prepare import installed_program
from deckard_deploy.cli.progress import minutes, startup_display
from deckard_deploy.cli.state import Deployed, start_line
from deckard_deploy.errors import BadInputError, StartFailedError
from deckard_deploy.planning.memory.fit import Memory
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import Site, observe
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process.runtime import ProcessRuntime
from deckard_deploy.running.releases import COMPOSE, Release, Releases
from deckard_deploy.running.runtime import Observation, Runtime
from deckard_deploy.startup import follow, history, readiness
from deckard_deploy.startup.phases import Phase
from deckard_deploy.startup.readiness import Outcome, Readiness

Say = Callable[[str], None]
LATE_S = 10.0  # weights and engine are had before the launch is recorded, so that little lies between
NOTHING_PLANNED: Mapping[str, Memory] = MappingProxyType({})


@contextmanager
def open_site(
    directory: StateDir,
    name: str,
    say: Say,
    *,
    also: str | None = None,
    planned: Mapping[str, Memory] = NOTHING_PLANNED,
) -> Iterator[Site]:
    """The deployment with the runtimes that can have something of it running, and `also`; closed in the end.

    The process runtime is always one of them: it finds processes by their marks, whatever became of the records.

    planned: the memory that plans foresee, by plan hash; said beside what the engine made.
    """
    deployment = directory.deployment(name)
    releases = Releases(deployment)
    in_docker = any((release.folder / COMPOSE).exists() for release in releases.all())
    environment = dict(os.environ)
    runtimes: dict[str, Runtime] = {}
    if in_docker or also == "docker":
        runtimes["docker"] = DockerRuntime(deployment, environment=environment, say=echo_command)
    program = functools.partial(installed_program, directory=directory, say=say)
    runtimes["process"] = ProcessRuntime(
        deployment, program=program, environment=environment, say=echo_command
    )
    site = Site(
        releases=releases,
        runtimes=runtimes,
        follow=functools.partial(prove_ready, directory=directory, say=say, planned=planned),
        say=say,
        prepare=lambda release: have_gateway(release.plan(), directory),
    )
    try:
        yield site
    finally:
        for runtime in runtimes.values():
            runtime.close()


def probe(release: Release, *, directory: StateDir, timeout_s: float = 120.0) -> Readiness:
    """Ask the release's endpoint once whether it is this launch that answers."""
    plan, launch = release.plan(), release.launch()
    return readiness.probe(
        plan.base_url,
        launch_id=launch.launch_id if launch else "",
        served_name=plan.served_name,
        access=access(plan, directory),
        timeout_s=timeout_s,
    )


def prove_ready(
    release: Release,
    runtime: Runtime,
    *,
    directory: StateDir,
    say: Say,
    planned: Mapping[str, Memory] = NOTHING_PLANNED,
) -> None:
    """Follow a start until the endpoint has answered; remember how long it took, and say what was planned otherwise.

    Raises StartFailedError and TimedOutError with the diagnosis.
    """
    plan = release.plan()
    before = history.starts_like(
        directory.startups, profile=plan.profile, model=plan.model, engine=plan.engine
    )
    eta = history.estimate(before, phase=Phase.CONTAINER, in_phase_s=0)
    answers: list[Readiness] = []

    def ask() -> Readiness:
        answers.append(probe(release, directory=directory))
        return answers[-1]

    with startup_display(eta.total_s if eta else None) as display:
        ready = follow.follow(
            runtime,
            ask,
            stalled_after_s=plan.startup_timeout_s,
            on_progress=display.show,
        )
    # At once: what follows may take long on a busy machine.
    whole = _followed_from_its_beginning(release, ready)
    program = functools.partial(installed_program, directory=directory, say=say)
    if plan.patches:
        say(f"patches  {attest(plan, runtime, program)}")
    if plan.plugin:
        say(f"plugin   {attest_plugin(plan, runtime)}")
    say(f"answer   {answers[-1].detail!r}")
    if prove_drafter(plan, access(plan, directory), say) and not _still_answers(ask):
        raise StartFailedError(
            f"it answered until it had drafted much: {answers[-1].detail}",
            hint="deckard-deploy up --drafter none",
        )
    memory = planned.get(plan.hash)
    say(f"ready    after {minutes(ready.elapsed_s)}{kv_cache_line(ready.facts, memory)}")
    if memory and (line := memory_line(ready.facts, memory)):
        say(f"memory   {line}")
    if whole:
        with contextlib.suppress(OSError):  # an estimate for the next start is not worth this one
            history.record(directory.startups, _start(plan, ready, memory))


def _still_answers(ask: Callable[[], Readiness]) -> bool:
    """An engine that the first long answers have killed is survived by its API server for seconds.

    One that others keep busy has not died: it may be followed while clients use it.
    """
    for _ in range(3):
        found = ask()
        if found.outcome is Outcome.READY or found.timed_out:
            return True
        time.sleep(1)
    return False


def _followed_from_its_beginning(release: Release, ready: follow.Ready) -> bool:
    """Whether the time that it took is that of a start: `wait` may have come late, or to a ready server."""
    launch = release.launch()
    age = datetime.now(UTC) - datetime.fromisoformat(launch.started_at) if launch else None
    return age is not None and age.total_seconds() < ready.elapsed_s + LATE_S


def _start(plan: LaunchPlan, ready: follow.Ready, memory: Memory | None) -> history.Start:
    return history.Start(
        profile=plan.profile,
        model=plan.model,
        engine=plan.engine,
        cold=ready.facts.compile_cache_hit is not True,
        total_s=ready.elapsed_s,
        durations=dict(ready.durations),
        memory=start_memory(ready.facts, memory) if memory else None,
    )


def endpoint(deployed: "Deployed") -> "LaunchPlan":
    """The plan that runs. Raises BadInputError when nothing of the deployment runs."""
    with open_site(deployed.directory, deployed.name, say) as site:
        return running_plan(deployed, site)[0]


def running_plan(deployed: "Deployed", site: "Site") -> "tuple[LaunchPlan, Observation]":
    """The same of an open site, and what of it was seen."""
    seen = observe(site.runtimes)
    release = site.releases.get(seen.plan_hash) if seen.plan_hash and seen.state == "running" else None
    if release is None:
        raise BadInputError(f"{deployed.name} does not run", hint=start_line(deployed))
    return release.plan(), seen
