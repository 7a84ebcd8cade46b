"""`up`: from a plan to a proven endpoint."""

from pathlib import Path

from deckard_deploy.errors import TimedOutError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.disk_space import require_disk_space
from deckard_deploy.operations.doctor import refuse_unfit
from deckard_deploy.operations.engine import ensure_engine
from deckard_deploy.operations.gateway import (
    ensure_gateway_files,
    has_stale_keys,
    refuse_unfit_gateway,
    refuse_useless_keys,
    reload_gateway_keys,
    report_exposure,
)
from deckard_deploy.operations.locked import require_locked
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import HostPlan, current_plan, plan_with_memory, refuse_what_cannot_run
from deckard_deploy.operations.readiness import probe
from deckard_deploy.operations.release import create_release, stale_files
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.operations.weights import ensure_weights
from deckard_deploy.planning.difference import difference
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import (
    Action,
    Decision,
    DeploymentContext,
    decide,
    deploy,
    describe_running,
    observe,
    restore_gateway,
    resume,
)
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Release
from deckard_deploy.startup.readiness import Outcome
from deckard_deploy.system.unknown import Unknown

PROBE_TIMEOUT_S = 120.0


def prepare(
    choice: Choice, directory: StateDir, report: Reporter, *, locked: bool = False, force: bool = False
) -> HostPlan:
    """Resolve and plan for this host, and refuse a plan that cannot run here. Nothing is written.

    locked: refuse every part that ./deckard.lock lacks. force: continue although `doctor` found a reason to
    stop. Raises BadInputError, IntegrityError, DoesNotFitError, EnvironmentUnfitError.
    """
    resolved = resolve_choice(choice, report)
    planned = plan_with_memory(resolved, directory, current_plan(directory, resolved.name))
    plan = planned.plan
    report.say(f"plan     {plan.hash}: {plan.model} on {plan.profile}, {plan.engine}")
    if locked:
        require_locked(planned.resolved, plan)
    refuse_useless_keys(planned.resolved, plan, directory)
    refuse_what_cannot_run(planned.resolved, planned.memory)
    refuse_unfit(planned.resolved, plan, directory, report, force=force)
    return planned


def up(
    choice: Choice,
    state_dir: Path | None,
    report: Reporter,
    *,
    locked: bool = False,
    force: bool = False,
) -> HostPlan:
    """Bring the endpoint of a choice up, and prove it ready. Return its plan.

    locked: refuse every part that ./deckard.lock lacks. force: continue although `doctor` found a reason to
    stop. Raises the errors of `prepare` and `run`.
    """
    directory = state_directory(state_dir)
    planned = prepare(choice, directory, report, locked=locked, force=force)
    run(planned, directory, report)
    return planned


def dry_run(choice: Choice, state_dir: Path | None, report: Reporter, *, locked: bool = False) -> None:
    """Report the actions of `up`.

    Nothing is changed. Raises the errors of `prepare`, without findings of `doctor`.
    """
    directory = state_directory(state_dir)
    planned = prepare(choice, directory, report, locked=locked, force=True)
    explain(planned.plan, directory, report)


def run(planned: HostPlan, directory: StateDir, report: Reporter) -> None:
    """Take the action that `decide_for` returns, until the plan's endpoint is proven ready.

    Raises DeploymentBusyError, and the errors of `ensure_weights`, `ensure_engine` and `deploy`.
    """
    plan = planned.plan
    deployment = directory.create(plan.deployment)
    memory = {} if isinstance(planned.memory, Unknown) else {plan.hash: planned.memory}
    with (
        lock_deployment(deployment, verb="up"),
        open_deployment(directory, plan.deployment, report, also=plan.runtime, planned=memory) as context,
    ):
        context.releases.clear_leftovers()
        try:
            _converge(planned, directory, context, report)
        except KeyboardInterrupt:
            report.say(f"interrupted: {describe_running(context)}")
            raise
        context.releases.prune()
    report_exposure(plan, directory, report)


def explain(plan: LaunchPlan, directory: StateDir, report: Reporter) -> None:
    """Report the action that `run` would take. Nothing is changed."""
    with open_deployment(directory, plan.deployment, report, also=plan.runtime) as context:
        decision, _ = decide_for(context, plan, directory)
        report.say(f"would    {decision.action}: {decision.cause}")
        _report_changes(context, plan, report)


def _converge(planned: HostPlan, directory: StateDir, context: DeploymentContext, report: Reporter) -> None:
    plan = planned.plan
    refuse_unfit_gateway(plan, directory)
    # Another release that still runs keeps its own files until it has been stopped.
    if observe(context.runtimes).plan_hash == plan.hash:
        stale = ensure_gateway_files(plan, directory, report) or has_stale_keys(plan, directory)
        if stale and reload_gateway_keys(context, directory):
            report.say("gateway  goes by its new files")
    decision, running = decide_for(context, plan, directory)
    if decision.action == "gateway" and running:
        report.say(f"gateway  {decision.cause}: it is started again")
        restore_gateway(context, running)
        decision, running = decide_for(context, plan, directory)
    if decision.action == "nothing":
        report.say(f"running  {decision.cause}: nothing to do")
        return
    report.say(f"{decision.action:8} {decision.cause}")
    _report_changes(context, plan, report)
    if running:
        resume(context, running)
        return
    runtime = context.runtimes[plan.runtime]
    require_disk_space(planned.resolved, plan, directory, runtime, report)
    ensure_weights(planned.resolved, directory, report)
    ensure_engine(plan, directory, runtime, report)
    deploy(context, *create_release(plan, context.releases))


def decide_for(
    context: DeploymentContext, plan: LaunchPlan, directory: StateDir
) -> tuple[Decision, Release | None]:
    """Return the action of `up`. A release that does not answer, or whose files are stale, is replaced.

    Return the running release too, unless it has to be replaced.
    Raises TimedOutError when the running release is too busy to answer.
    """
    stored = context.releases.get(plan.hash)
    launch = stored.launch() if stored else None
    decision = decide(plan.hash, observe(context.runtimes), launch)
    if stored is None or not (decision.action in ("nothing", "follow", "gateway") or decision.unless_answers):
        return decision, None
    release = stored.load()
    stale = stale_files(release)
    if stale:
        return Decision("replace", f"this version of the tool writes {' and '.join(stale)} otherwise"), None
    if decision.action in ("follow", "gateway"):
        return decision, release
    found = probe(release, directory=directory, timeout_s=PROBE_TIMEOUT_S)
    if found.outcome is Outcome.READY:
        action: Action = "follow" if decision.unless_answers else "nothing"
        return Decision(action, f"{decision.cause}, and answers"), release
    if found.timed_out:
        raise TimedOutError(
            f"{plan.deployment} runs, but has not answered within {PROBE_TIMEOUT_S:g} s: it may only be busy",
            hint=f"deckard-deploy status --name {plan.deployment}, "
            f"or restart it: deckard-deploy down --name {plan.deployment}",
        )
    return Decision("replace", f"it runs, but is {found.outcome}: {found.detail}"), None


def _report_changes(context: DeploymentContext, plan: LaunchPlan, report: Reporter) -> None:
    current = context.releases.current()
    changes = difference(current.load().plan, plan) if current else ()
    if current and changes:
        report.say(f"change   {current.plan_hash} -> {plan.hash}")
        for change in changes:
            report.say(f"           {change}")
