"""`doctor`: the findings about this machine, and those that stop `up`."""

import platform
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.doctor import facts as fact_files
from deckard_deploy.doctor.findings import Finding
from deckard_deploy.doctor.judge import evaluate_rules
from deckard_deploy.doctor.target import Folders, Target, target_for_plan
from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.choice import DEFAULT_FILE, resolve_choice
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.host import read_host_facts
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import HostPlan, current_plan, plan_for_host
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import observe
from deckard_deploy.running.layout import StateDir, home_required, state_directory
from deckard_deploy.running.process.environment import STAMP
from deckard_deploy.running.process.locks import LOCKS

# The folders in the user's home that engines outside of this tool compile into.
_OWN_CACHES = (".cache/vllm", ".cache/flashinfer", ".triton/cache")


def select_target(choice: Choice, state_dir: Path | None, report: Reporter, *, here: bool) -> Target:
    """Return the target of the rules for a choice; for an empty choice, one that fits every machine.

    here: the rules evaluate this machine, on which the deployment may run.
    Raises BadInputError, and EnvironmentUnfitError for a user without a home.
    """
    directory = state_directory(state_dir)
    if choice == Choice() and not DEFAULT_FILE.is_file():
        with home_required():
            caches = tuple(Path.home() / folder for folder in _OWN_CACHES)
        return Target(folders=Folders(weights=directory.models, caches=caches))
    resolved = resolve_choice(choice, report, directory)
    plan = plan_for_host(resolved, directory, current_plan(directory, resolved.name))
    running = _running(directory, plan, report) if here else None
    with home_required():
        target = _target_beside(running, resolved, plan, directory)
    return _with_environment(target, resolved, directory)


def _with_environment(target: Target, resolved: Resolved, directory: StateDir) -> Target:
    """Return the target with the needs of a private environment: `up` would install it."""
    lock = LOCKS.get(resolved.engine.dependency_lock or "")
    if lock is None or target.needs_docker:
        return target
    sizes = [route.disk_gb for route in lock.routes if route.machine == platform.machine()]
    installed = (directory.engines / resolved.engine.name / STAMP).is_file()
    # The largest route: which one it is, only a trial tells.
    needed = 0.0 if installed else max(sizes, default=0.0)
    return replace(target, engine_gb=needed, libraries=lock.libraries)


class Examination(NamedTuple):
    """The findings, and the profile that they are for, if any."""

    profile: str | None
    findings: list[Finding]

    @property
    def failed(self) -> bool:
        """True if a finding would stop the deployment."""
        return any(finding.severity == "fail" for finding in self.findings)


def examine(
    choice: Choice,
    state_dir: Path | None,
    report: Reporter,
    *,
    source: Path | None = None,
    saved: Path | None = None,
) -> Examination:
    """Return the findings about this machine, or about facts saved earlier.

    source: a file of facts to evaluate instead of this machine. saved: a file to write the facts to.
    Raises BadInputError for a file that cannot be read or written.
    """
    target = select_target(choice, state_dir, report, here=source is None)
    facts = fact_files.load(source) if source else read_host_facts(target)
    if saved:
        fact_files.save(facts, saved)
    return Examination(target.profile, list(evaluate_rules(facts, target)))


def refuse_unfit(planned: HostPlan, directory: StateDir, report: Reporter, *, force: bool) -> None:
    """Raise EnvironmentUnfitError with the findings that would stop `up` on a GPU.

    force: report them and continue.
    """
    resolved, plan = planned.resolved, planned.plan
    if not resolved.engine.gpu:
        return
    running = _running(directory, plan, report)
    if running and running.plan_hash == plan.hash:
        return  # nothing will be started
    target = _target_beside(running, resolved, plan, directory)
    if planned.shared:
        beside = sum(len(each.gpus) or 1 for each in planned.shared.neighbours)
        target = replace(target, engines_beside=beside)
    target = _with_environment(target, resolved, directory)
    findings = evaluate_rules(read_host_facts(target, quick=True), target, before_up=True)
    for finding in findings:
        report.say(f"doctor   {finding.rule}: {finding.what}\n           try: {finding.fix}")
    if findings and not force:
        names = ", ".join(finding.rule for finding in findings)
        raise EnvironmentUnfitError(
            f"this machine does not fit {plan.profile}: {names}",
            hint=f"deckard-deploy doctor --profile {plan.profile}, "
            "or go on all the same: deckard-deploy up --force",
        )


class _Running(NamedTuple):
    """The release of the deployment that runs. address and port: None if its plan is not known."""

    plan_hash: str | None
    address: str | None = None
    port: int | None = None


def _target_beside(
    running: _Running | None, resolved: Resolved, plan: LaunchPlan, directory: StateDir
) -> Target:
    """Return the target of the plan on a machine where its deployment may run already."""
    target = target_for_plan(resolved, plan, models=directory.models, running=running is not None)
    if running is None:
        return target
    own = (running.address, running.port) in [(plan.address, plan.port), (None, None)]
    return replace(target, holds_port=own)


def _running(directory: StateDir, plan: LaunchPlan, report: Reporter) -> _Running | None:
    """Return the running release, None when nothing runs."""
    if plan.deployment not in directory.deployments():
        return None
    try:
        with open_deployment(directory, plan.deployment, report) as context:
            seen = observe(context.runtimes)
            release = context.releases.get(seen.plan_hash) if seen.plan_hash else None
    except EnvironmentUnfitError:
        return None  # docker does not answer, which is a finding of its own
    if seen.state not in ("running", "restarting"):
        return None
    if release is None:
        return _Running(seen.plan_hash)
    with suppress(IntegrityError):
        started = release.load().plan
        return _Running(seen.plan_hash, started.address, started.port)
    return _Running(seen.plan_hash)
