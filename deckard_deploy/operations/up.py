"""`up`: from a plan to a proven endpoint."""

from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError, DeployError, TimedOutError
from deckard_deploy.operations.deployments import open_deployment, refuse_other_docker
from deckard_deploy.operations.disk_space import require_disk_space
from deckard_deploy.operations.doctor import refuse_unfit
from deckard_deploy.operations.engine import ensure_engine, require_installable_engine
from deckard_deploy.operations.gateway import (
    ensure_gateway_files,
    has_stale_keys,
    refuse_unfit_gateway,
    refuse_useless_keys,
    reload_gateway_keys,
    report_exposure,
)
from deckard_deploy.operations.locked import require_locked
from deckard_deploy.operations.options import PLAIN_UP, UpOptions
from deckard_deploy.operations.plan import (
    HostPlan,
    current_plan,
    plan_with_memory,
    refuse_what_cannot_run,
    shared_line,
)
from deckard_deploy.operations.readiness import probe
from deckard_deploy.operations.release import (
    create_release,
    read_asked,
    record_asked,
    renew_gateway_config,
    stale_files,
)
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.operations.service import boot_sentence
from deckard_deploy.operations.weights import ensure_weights
from deckard_deploy.planning.difference import difference
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.resources import tool_version
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
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Observation
from deckard_deploy.startup.readiness import Outcome
from deckard_deploy.system.files import remove_folder
from deckard_deploy.system.ports import require_free
from deckard_deploy.system.unknown import Unknown

PROBE_TIMEOUT_S = 120.0


class Wish(NamedTuple):
    """What the user wants of a running release.

    asked: the choice, as `Resolved.asked`; None: not known, so that another plan is a change. upgrade: replace a
    release that this version of the tool plans or renders otherwise.
    """

    asked: str | None = None
    upgrade: bool = False


ANY_PLAN = Wish()
_WORDS = {
    "nothing": "do nothing",
    "follow": "follow the start",
    "gateway": "start the gateway again",
    "start": "start",
    "replace": "replace the running release",
}


def prepare(
    resolved: Resolved, directory: StateDir, report: Reporter, options: UpOptions = PLAIN_UP
) -> HostPlan:
    """Plan one engine for this host, and refuse a plan that cannot run here. Nothing is written.

    Raises BadInputError, IntegrityError, DoesNotFitError, EnvironmentUnfitError.
    """
    refuse_group_names(resolved, directory)
    planned = plan_with_memory(resolved, directory, current_plan(directory, resolved.name))
    plan = planned.plan
    report.say(f"plan     {plan.hash}: {plan.model} on {plan.profile}, {plan.engine}")
    if planned.shared:
        report.say(f"next to  {shared_line(planned)}")
    if options.locked:
        require_locked(planned.resolved, plan)
    refuse_useless_keys(planned.resolved, plan, directory)
    refuse_what_cannot_run(planned)
    refuse_unfit(planned, directory, report, force=options.force)
    return planned


def refuse_group_names(resolved: Resolved, directory: StateDir) -> None:
    """Raise BadInputError for one engine in the place of replicas, or of one of them."""
    name = resolved.name
    front = directory.front_of(name)
    if front:
        raise BadInputError(
            f"{name} is a replica of {front}", hint=f"deckard-deploy up --name {front} --replicas N"
        )
    if directory.deployment(name).group.exists():
        raise BadInputError(
            f"{name} has replicas",
            hint=f"--replicas N; or, for one engine in their place, first: deckard-deploy down --name {name} --purge",
        )


def run(planned: HostPlan, directory: StateDir, report: Reporter, *, upgrade: bool = False) -> None:
    """Take the action that `decide_for` returns, until the plan's endpoint is proven ready.

    Raises DeploymentBusyError, and the errors of `ensure_weights`, `ensure_engine` and `deploy`.
    """
    converge(planned, directory, report, upgrade=upgrade)
    report_exposure(planned.plan, directory, report)
    report.say(boot_sentence(planned.plan))


def converge(planned: HostPlan, directory: StateDir, report: Reporter, *, upgrade: bool = False) -> None:
    """Do the work of `run`, for one engine of several too."""
    plan = planned.plan
    deployment = directory.create(plan.deployment)
    memory = {} if isinstance(planned.memory, Unknown) else {plan.hash: planned.memory}
    with (
        lock_deployment(deployment, verb="up"),
        open_deployment(directory, plan.deployment, report, also=plan.runtime, planned=memory) as context,
    ):
        context.releases.clear_leftovers()
        try:
            _converge(planned, directory, context, report, Wish(planned.resolved.asked, upgrade))
        except KeyboardInterrupt:
            report.say(f"interrupted: {describe_running(context)}")
            raise
        except DeployError:
            if context.releases.never_started():  # guard: F66
                remove_folder(deployment.folder)
            raise
        context.releases.prune()


def explain(plan: LaunchPlan, directory: StateDir, report: Reporter, wish: Wish = ANY_PLAN) -> None:
    """Report the action that `run` would take. Nothing is changed. Raises the errors of `_refuse_start`, and of
    `refuse_unfit_gateway`.
    """
    with open_deployment(directory, plan.deployment, report, also=plan.runtime) as context:
        refuse_other_docker(context.releases, report)
        decision, _ = decide_for(context, plan, directory, wish)
        report.say(f"dry run: would {_WORDS[decision.action]} ({decision.cause})")
        _report_changes(context, plan, report)
        if decision.action in ("start", "replace"):
            refuse_unfit_gateway(plan, directory)
            _refuse_start(context, plan, directory)


def _converge(
    planned: HostPlan, directory: StateDir, context: DeploymentContext, report: Reporter, wish: Wish
) -> None:
    plan = planned.plan
    refuse_other_docker(context.releases, report)
    refuse_unfit_gateway(plan, directory)
    # Another release that still runs keeps its own files until it has been stopped.
    if observe(context.runtimes).plan_hash == plan.hash:
        stored = context.releases.get(plan.hash)
        stale = [
            ensure_gateway_files(plan, directory, report),
            has_stale_keys(plan, directory),
            stored is not None and stored.launch() is not None and renew_gateway_config(stored.load()),
        ]
        if any(stale) and reload_gateway_keys(context, directory):
            report.say("gateway  uses its new files")
    decision, running = decide_for(context, plan, directory, wish)
    if decision.action == "gateway" and running:
        report.say(f"gateway  {decision.cause}: it is started again")
        restore_gateway(context, running)
        decision, running = decide_for(context, plan, directory, wish)
    if decision.action == "nothing":
        report.say(f"running  {decision.cause}: nothing to do")
        if running:
            _keep(context, running, planned, report)
        return
    report.say(f"{decision.action:8} ({decision.cause})")
    _report_changes(context, plan, report)
    if running:
        resume(context, running)
        return
    _refuse_start(context, plan, directory)
    runtime = context.runtimes[plan.runtime]
    require_disk_space(planned.resolved, plan, directory, runtime, report)
    ensure_weights(planned.resolved, directory, report)
    ensure_engine(plan, directory, runtime, report)
    deploy(context, *create_release(plan, context.releases, planned.resolved.asked))


def decide_for(
    context: DeploymentContext, plan: LaunchPlan, directory: StateDir, wish: Wish = ANY_PLAN
) -> tuple[Decision, Release | None]:
    """Return the action of `up`. A release that does not answer is replaced.

    A healthy release that only this version of the tool plans or renders otherwise is left alone, unless the
    user wishes an upgrade. Return the running release too, unless it has to be replaced.
    Raises TimedOutError when the running release is too busy to answer, BadInputError when the choice of a
    running release of an earlier version is unknown.
    """
    observed = observe(context.runtimes)
    kept = None if wish.upgrade else _planned_otherwise(context, observed, plan, wish)
    stored = kept or context.releases.get(plan.hash)
    launch = stored.launch() if stored else None
    decision = decide(stored.plan_hash if stored else plan.hash, observed, launch)
    if stored is None or not (decision.action in ("nothing", "follow", "gateway") or decision.unless_answers):
        return decision, None
    release = stored.load()
    stale = "" if kept else _stale(release)
    if stale and wish.upgrade:
        return Decision("replace", stale), None
    if decision.action in ("follow", "gateway"):
        return decision, release
    found = probe(release, directory=directory, timeout_s=PROBE_TIMEOUT_S)
    if found.outcome is Outcome.READY:
        return _answering(decision, _otherwise(release, plan) if kept else stale), release
    if found.timed_out:
        raise TimedOutError(
            f"{plan.deployment} runs, but has not answered within {PROBE_TIMEOUT_S:g} s: it may only be busy",
            hint=f"deckard-deploy status --name {plan.deployment}, "
            f"or restart it: deckard-deploy down --name {plan.deployment}",
        )
    return Decision("replace", f"it runs, but is {found.outcome}: {found.detail}"), None


def _answering(decision: Decision, otherwise: str) -> Decision:
    """Return the decision for a release that answers. otherwise: how this version of the tool would start it."""
    action: Action = "follow" if decision.unless_answers else "nothing"
    added = f"; {otherwise}: --upgrade replaces it" if otherwise else ""
    return Decision(action, f"{decision.cause}, and answers{added}")


def _planned_otherwise(
    context: DeploymentContext, observed: Observation, plan: LaunchPlan, wish: Wish
) -> Release | None:
    """Return the running release if the user has not asked for its replacement, although the plan is another one.

    That is: the same choice gives another plan with this version of the tool or on this host by now, or an
    earlier version has recorded no choice.
    """
    if wish.asked is None or observed.state != "running" or observed.plan_hash in (None, plan.hash):
        return None
    folder = context.releases.get(str(observed.plan_hash))
    if folder is None or folder != context.releases.current():
        return None
    release = folder.load()
    before = read_asked(release)
    if before is not None and before.asked != wish.asked:
        return None
    return release  # guard: F65


def _otherwise(release: Release, plan: LaunchPlan) -> str:
    """Return why the plan is another one. Raises BadInputError when the user may have asked for the change."""
    before = read_asked(release)
    if before is None:
        raise BadInputError(
            f"{plan.deployment} runs plan {release.plan_hash} of an earlier version of this tool, which recorded no "
            f"choice; {tool_version()} plans {plan.hash} for this one, and the engine is left alone",
            hint="the same command with --dry-run --upgrade shows the changes, with --upgrade it replaces the engine",
        )
    return f"version {before.version} planned it, and {tool_version()} plans {plan.hash} for the same choice"


def _stale(release: Release) -> str:
    """Return the files that this version of the tool would write otherwise, as a sentence; "" if there is none."""
    names = stale_files(release)
    return f"this version of the tool writes {' and '.join(names)} otherwise" if names else ""


def _keep(context: DeploymentContext, running: Release, planned: HostPlan, report: Reporter) -> None:
    """Leave what runs alone, and bring its records up to date."""
    if context.releases.current() is None:
        # The link was lost, as in a copy of the state directory without links: `watch` and `rollback` need it.
        context.releases.switch(running)
    if running.plan_hash != planned.plan.hash:
        _report_changes(context, planned.plan, report)
    else:
        record_asked(running, context.releases, planned.resolved.asked)


def _refuse_start(context: DeploymentContext, plan: LaunchPlan, directory: StateDir) -> None:
    """Raise EnvironmentUnfitError for what stops the start, before anything is fetched, written or stopped."""
    runtime = context.runtimes[plan.runtime]
    runtime.refuse_foreign()
    runtime.require_supported()
    require_installable_engine(plan, directory, runtime)
    observed = observe(context.runtimes)
    gone = (None, "missing", "exited")
    if (
        observed.state not in gone or observed.gateway not in gone
    ):  # the gateway has the port, if there is one
        running = context.releases.current()
        if observed.plan_hash:
            running = context.releases.get(observed.plan_hash)
        if running is None or running.load().plan.port == plan.port:
            return
    require_free(plan.address, plan.port)


def _report_changes(context: DeploymentContext, plan: LaunchPlan, report: Reporter) -> None:
    current = context.releases.current()
    changes = difference(current.load().plan, plan) if current else ()
    if current and changes:
        report.say(f"change   {current.plan_hash} -> {plan.hash}")
        for change in changes:
            report.say(f"           {change}")
