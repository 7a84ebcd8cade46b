"""`up`: from a profile to a proven endpoint."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deckard_deploy.cli.doctor import refuse_unfit
from deckard_deploy.cli.options import host_deployment_options
from deckard_deploy.cli.output import say
from deckard_deploy.cli.pinned import locked_option, refuse_unlocked
from deckard_deploy.cli.state import state, state_option

if TYPE_CHECKING:
    from deckard_deploy.catalog.resolution import Resolved
    from deckard_deploy.planning.memory import Memory
    from deckard_deploy.planning.plan import LaunchPlan
    from deckard_deploy.running.deploy import Decision, Site
    from deckard_deploy.running.layout import StateDir

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
    from deckard_deploy.cli.gateway import say_what_is_open  # noqa: PLC0415  not for --help
    from deckard_deploy.cli.host_plan import measured_plan  # noqa: PLC0415  not for --help
    from deckard_deploy.cli.plan_memory import refuse_what_cannot_run  # noqa: PLC0415  same
    from deckard_deploy.cli.progress import minutes  # noqa: PLC0415  same
    from deckard_deploy.running.lock import held  # noqa: PLC0415  same

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
    say(f"took     {minutes(time.monotonic() - started)}; try: {program} chat --name {plan.deployment} 'Hello?'")
    click.echo(plan.base_url)


def _up(resolved: "Resolved", plan: "LaunchPlan", directory: "StateDir", *, memory: "Memory | str") -> None:
    from deckard_deploy.cli.site import open_site  # noqa: PLC0415  not for --help
    from deckard_deploy.running.deploy import what_runs  # noqa: PLC0415  same

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
    from deckard_deploy.cli.gateway import (  # noqa: PLC0415  not for --help
        goes_by_older_keys,
        have_gateway,
        refuse_unfit_gateway,
        take_over,
    )
    from deckard_deploy.cli.prepare import have_engine, have_weights, stored_release  # noqa: PLC0415  same
    from deckard_deploy.cli.room import require_room  # noqa: PLC0415  same
    from deckard_deploy.running.deploy import bring_up, follow_up, observe  # noqa: PLC0415  same
    from deckard_deploy.running.docker_runtime import DockerRuntime  # noqa: PLC0415  same

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
    from deckard_deploy.cli.prepare import outdated  # noqa: PLC0415  not for --help
    from deckard_deploy.cli.site import probe  # noqa: PLC0415  not for --help
    from deckard_deploy.errors import TimedOutError  # noqa: PLC0415  same
    from deckard_deploy.running.deploy import Decision, decide, observe  # noqa: PLC0415  same
    from deckard_deploy.startup.readiness import Outcome  # noqa: PLC0415  same

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
    from deckard_deploy.planning.difference import difference  # noqa: PLC0415  not for --help

    current = site.releases.current()
    changes = difference(current.plan(), plan) if current else ()
    if current and changes:
        say(f"change   {current.plan_hash} -> {plan.hash}")
        for change in changes:
            say(f"           {change}")


def _explain(plan: "LaunchPlan", directory: "StateDir") -> None:
    from deckard_deploy.cli.site import open_site  # noqa: PLC0415  not for --help

    with open_site(directory, plan.deployment, say, also=plan.runtime) as site:
        decision = _decision(site, plan, directory)
        say(f"would    {decision.action}: {decision.cause}")
        _say_changes(site, plan)
