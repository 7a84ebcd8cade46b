"""`up`: from a profile to a proven endpoint."""

import time
from pathlib import Path

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli.doctor import refuse_unfit
from deckard_deploy.cli.gateway import (
    goes_by_older_keys,
    have_gateway,
    refuse_unfit_gateway,
    say_what_is_open,
    take_over,
)
from deckard_deploy.cli.host_plan import measured_plan
from deckard_deploy.cli.options import host_deployment_options
from deckard_deploy.cli.output import say
from deckard_deploy.cli.pinned import locked_option, refuse_unlocked
from deckard_deploy.cli.plan_memory import refuse_what_cannot_run
from deckard_deploy.cli.prepare import have_engine, have_weights, outdated, stored_release
from deckard_deploy.cli.progress import minutes
from deckard_deploy.cli.room import require_room
from deckard_deploy.cli.site import open_site, probe
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.errors import TimedOutError
from deckard_deploy.planning.difference import difference
from deckard_deploy.planning.memory.fit import Memory
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import Decision, Site, bring_up, decide, follow_up, observe, what_runs
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import held
from deckard_deploy.startup.readiness import Outcome

PROBE_TIMEOUT_S = 120.0


@click.command()
@host_deployment_options
@state_option
@locked_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--force", is_flag=True, help="Go on although `doctor` found what will stop it.")
def up(resolved: "Resolved", *, state_dir: Path | None, locked: bool, dry_run: bool, force: bool) -> None:
    """Start the endpoint and wait until it is proven ready.

    Without --profile it takes the one that is made for this machine, and says so.
    The base URL is the only thing on stdout. Nothing is restarted when neither the plan nor the files that this
    version of the tool writes for it have changed.

    \b
    Example:
      deckard-deploy up --profile cpu
    """
    started, program = time.monotonic(), click.get_current_context().find_root().info_name
    directory = state(state_dir)
    resolved, plan, memory = measured_plan(resolved, directory)
    say(f"plan     {plan.hash}: {plan.model} on {plan.profile}, {plan.engine}")
    if locked:
        refuse_unlocked(resolved, plan)
    refuse_what_cannot_run(resolved, memory)
    refuse_unfit(resolved, plan, directory, force=force or dry_run)
    if dry_run:
        _explain(plan, directory)
        return
    deployment = directory.create(plan.deployment)
    with held(deployment, verb="up"):
        _up(resolved, plan, directory, memory=memory)
    say_what_is_open(plan, directory)
    say(
        f"took     {minutes(time.monotonic() - started)}; try: {program} chat --name {plan.deployment} 'Hello?'"
    )
    click.echo(plan.base_url)


def _up(resolved: "Resolved", plan: "LaunchPlan", directory: "StateDir", *, memory: "Memory | str") -> None:

    planned = {} if isinstance(memory, str) else {plan.hash: memory}
    with open_site(directory, plan.deployment, say, also=plan.runtime, planned=planned) as site:
        site.releases.clear_leftovers()
        try:
            _converge(resolved, plan, directory, site)
        except KeyboardInterrupt:
            say(f"interrupted: {what_runs(site)}")
            raise
        site.releases.prune()


def _converge(resolved: "Resolved", plan: "LaunchPlan", directory: "StateDir", site: "Site") -> None:

    refuse_unfit_gateway(plan, directory)
    # Another release that still runs keeps its own files until it has made room.
    runs = observe(site.runtimes).plan_hash == plan.hash
    stale = runs and (have_gateway(plan, directory) or goes_by_older_keys(plan, directory))
    if stale and take_over(site, directory):
        say("gateway  goes by its new files")
    decision = _decision(site, plan, directory)
    if decision.action == "nothing":
        say(f"running  {decision.cause}: nothing to do")
        return
    say(f"{decision.action:8} {decision.cause}")
    _say_changes(site, plan)
    release = site.releases.get(plan.hash)
    if decision.action == "follow" and release:
        follow_up(site, release)
    else:
        runtime = site.runtimes[plan.runtime]
        if isinstance(runtime, DockerRuntime):
            require_room(resolved, plan, directory, runtime.engine)
        have_weights(resolved, directory, say)
        have_engine(plan, directory, runtime, say)
        bring_up(site, *stored_release(plan, site.releases))


def _decision(site: "Site", plan: "LaunchPlan", directory: "StateDir") -> "Decision":
    """What has to be done; one that runs as planned is replaced if it does not answer, or runs from older files."""
    release = site.releases.get(plan.hash)
    decision = decide(plan.hash, observe(site.runtimes), release.launch() if release else None)
    if release is None or decision.action not in ("nothing", "follow"):
        return decision
    if files := outdated(release):
        return Decision("replace", f"this version of the tool writes {' and '.join(files)} otherwise")
    if decision.action == "follow":
        return decision
    found = probe(release, directory=directory, timeout_s=PROBE_TIMEOUT_S)
    if found.outcome is Outcome.READY:
        return Decision("nothing", f"{decision.cause}, and answers")
    if found.timed_out:
        raise TimedOutError(
            f"{plan.deployment} runs, but has not answered within {PROBE_TIMEOUT_S:g} s: it may only be busy",
            hint=f"deckard-deploy status, or restart it: deckard-deploy down --name {plan.deployment}",
        )
    return Decision("replace", f"it runs, but is {found.outcome}: {found.detail}")


def _say_changes(site: "Site", plan: "LaunchPlan") -> None:

    current = site.releases.current()
    changes = difference(current.plan(), plan) if current else ()
    if current and changes:
        say(f"change   {current.plan_hash} -> {plan.hash}")
        for change in changes:
            say(f"           {change}")


def _explain(plan: "LaunchPlan", directory: "StateDir") -> None:

    with open_site(directory, plan.deployment, say, also=plan.runtime) as site:
        decision = _decision(site, plan, directory)
        say(f"would    {decision.action}: {decision.cause}")
        _say_changes(site, plan)
