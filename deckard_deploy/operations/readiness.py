"""The start of an engine, followed until the endpoint is proven ready."""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import MappingProxyType

from deckard_deploy.errors import StartFailedError
from deckard_deploy.operations.damage import report_damage
from deckard_deploy.operations.drafter import check_drafter_acceptance
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.measured_memory import kv_cache_line, memory_line, start_memory
from deckard_deploy.operations.patch_files import attest, attest_plugin
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.memory.fit import MemoryPlan
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.startup import follow, history, readiness
from deckard_deploy.startup.phases import Phase
from deckard_deploy.startup.readiness import Outcome, Readiness
from deckard_deploy.system.text import clock

# The time between the record of a launch and its start is short: weights and engine are ready before.
LATE_S = 10.0
NOTHING_PLANNED: Mapping[str, MemoryPlan] = MappingProxyType({})


def probe(release: Release, *, directory: StateDir, timeout_s: float = 120.0) -> Readiness:
    """Probe the release's endpoint once for its recorded launch; a front for an answer of any replica."""
    plan = release.plan
    if plan.role == "front":
        return readiness.probe_answer(
            plan.base_url,
            served_name=plan.served_name,
            task=plan.task,
            access=credentials(plan, directory),
            timeout_s=timeout_s,
        )
    launch = release.launch()
    return readiness.probe(
        plan.base_url,
        launch_id=launch.launch_id if launch else "",
        served_name=plan.served_name,
        task=plan.task,
        access=credentials(plan, directory),
        timeout_s=timeout_s,
    )


def probe_ranks(
    release: Release, count: int, *, directory: StateDir, timeout_s: float = 120.0
) -> list[Readiness]:
    """Ask each of `count` data-parallel ranks at the same time. Return their answers, in the order of the ranks."""
    launch = release.launch()
    ask = functools.partial(
        readiness.probe_rank,
        release.plan.base_url,
        launch_id=launch.launch_id if launch else "",
        task=release.plan.task,
        access=credentials(release.plan, directory),
        timeout_s=timeout_s,
    )
    with ThreadPoolExecutor(max_workers=count) as pool:
        return list(pool.map(ask, range(count)))


def wait_until_ready(
    release: Release,
    runtime: Runtime,
    *,
    directory: StateDir,
    report: Reporter,
    planned: Mapping[str, MemoryPlan] = NOTHING_PLANNED,
) -> None:
    """Follow a start until the endpoint has answered, check the engine's files, and record the duration.

    planned: the memory that the plan expects, by plan hash.
    Raises StartFailedError and TimedOutError with the diagnosis.
    """
    plan = release.plan
    earlier = history.starts_like(
        directory.startups, profile=plan.profile, model=plan.model, engine=plan.engine
    )
    eta = history.estimate(earlier, phase=Phase.CONTAINER, in_phase_s=0)
    answers: list[Readiness] = []

    def ask() -> Readiness:
        answers.append(probe(release, directory=directory))
        return answers[-1]

    with report.startup(eta.total_s if eta else None) as display:
        ready = follow.follow(runtime, ask, stalled_after_s=plan.startup_timeout_s, on_progress=display.show)
    # Before the checks below, which may take long on a busy machine.
    whole_start = _followed_from_its_beginning(release, ready)
    if plan.patches or plan.request_filter:
        report.say(f"patches  {attest(plan, runtime)}")
    if plan.plugin:
        report.say(f"plugin   {attest_plugin(plan, runtime)}")
    report.say(f"answer   {answers[-1].detail!r}")
    drafts = check_drafter_acceptance(plan, credentials(plan, directory), report.say)
    if drafts and not _still_answers(ask):
        raise StartFailedError(
            f"it answered until it had drafted much: {answers[-1].detail}",
            hint="deckard-deploy up --drafter none",
        )
    if plan.task == "generate":
        report_damage(plan, directory, report)
    memory = planned.get(plan.hash)
    report.say(f"ready    after {clock(ready.elapsed_s)}{kv_cache_line(ready.facts, memory)}")
    measured = memory_line(ready.facts, memory) if memory else ""
    if measured:
        report.say(f"memory   {measured}")
    if whole_start:
        with contextlib.suppress(OSError):  # this start is worth more than the estimate of the next
            history.record(directory.startups, _record_of(plan, ready, memory))


def _still_answers(ask: Callable[[], Readiness]) -> bool:
    """Ask up to three times: the API server keeps answering for some seconds after its engine has died.

    An engine that is busy has not died: clients may use it while it is followed.
    """
    for _ in range(3):
        found = ask()
        if found.outcome is Outcome.READY or found.timed_out:
            return True
        time.sleep(1)
    return False


def _followed_from_its_beginning(release: Release, ready: follow.Ready) -> bool:
    """Return True if the measured time is that of a whole start. `wait` may begin late."""
    launch = release.launch()
    if launch is None:
        return False
    age = datetime.now(UTC) - datetime.fromisoformat(launch.started_at)
    return age.total_seconds() < ready.elapsed_s + LATE_S


def _record_of(plan: LaunchPlan, ready: follow.Ready, memory: MemoryPlan | None) -> history.Start:
    return history.Start(
        profile=plan.profile,
        model=plan.model,
        engine=plan.engine,
        cold=ready.facts.compile_cache_hit is not True,
        total_s=ready.elapsed_s,
        durations=dict(ready.durations),
        memory=start_memory(ready.facts, memory) if memory else None,
    )
