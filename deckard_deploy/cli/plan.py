"""`plan`: what `up` would run, and what would change."""

import json
from pathlib import Path

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli import plan_memory, plan_speed
from deckard_deploy.cli.host_plan import current_plan, measured_plan
from deckard_deploy.cli.options import host_deployment_options
from deckard_deploy.cli.output import table
from deckard_deploy.cli.pinned import locked_option, refuse_unlocked
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.planning.arguments import option_lines
from deckard_deploy.planning.difference import difference
from deckard_deploy.planning.memory.changes import Change, smallest_changes
from deckard_deploy.planning.memory.fit import Memory
from deckard_deploy.planning.plan import LaunchPlan

WIDTH = 80


@click.command()
@host_deployment_options
@state_option
@locked_option
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--explain", is_flag=True, help="Show the formulas and the sources of what is assumed.")
def plan(resolved: "Resolved", *, state_dir: Path | None, locked: bool, as_json: bool, explain: bool) -> None:
    """Show what `up` would run, and what would change.

    Without --profile it takes the one that is made for this machine, and says so.
    Exit code 9 when it does not fit into the GPU's memory.

    \b
    Example:
      deckard-deploy plan --profile spark --set max-num-seqs=8
    """
    directory = state(state_dir)
    resolved, wanted, memory = measured_plan(resolved, directory)
    if locked:
        refuse_unlocked(resolved, wanted)
    fitting = _changes_that_fit(resolved, memory)
    current = current_plan(directory, wanted.deployment)
    changes = _differences(current, wanted) if current else []
    if as_json:
        said = {
            "hash": wanted.hash,
            "current": current.hash if current else None,
            "changes": changes,
            "memory": plan_memory.memory_json(memory, fitting),
            "speed": plan_speed.speed_json(resolved),
            "drafter_measured": plan_speed.measured_json(resolved, directory.bench / "spec"),
            "plan": wanted.model_dump(mode="json"),
        }
        click.echo(json.dumps(said, indent=2))
    else:
        table(_summary(wanted))
        for line in plan_memory.memory_lines(memory, fitting, limit=resolved.model.context_limit):
            click.echo(line)
        for line in (
            *plan_speed.speed_lines(resolved),
            *plan_speed.measured_lines(resolved, directory.bench / "spec"),
        ):
            click.echo(line)
        if explain:
            _echo_explanation(resolved, memory)
        _echo_change(current, wanted, changes)
    if not isinstance(memory, str) and memory.verdict == "no":
        raise plan_memory.does_not_fit(memory, fitting)


def _changes_that_fit(resolved: "Resolved", memory: "Memory | str") -> "tuple[Change, ...]":
    if isinstance(memory, str) or memory.verdict == "fits":
        return ()

    return smallest_changes(resolved, memory)


def _differences(current: "LaunchPlan", wanted: "LaunchPlan") -> list[str]:

    return [str(change) for change in difference(current, wanted)]


def _echo_explanation(resolved: "Resolved", memory: "Memory | str") -> None:

    for line in (*plan_memory.explained(memory), *plan_speed.explained(resolved)):
        click.echo(line)


def _echo_change(current: "LaunchPlan | None", wanted: "LaunchPlan", changes: list[str]) -> None:
    if current is None:
        click.echo("change       first deployment: nothing to replace")
    elif not changes:
        click.echo(f"change       none: {wanted.hash} is the current release")
    else:
        click.echo(f"change       {current.hash} -> {wanted.hash}, a restart is needed:")
        for change in changes:
            click.echo(f"  {change}")


def _summary(plan: "LaunchPlan") -> list[tuple[str, str]]:

    model, *options = option_lines(plan.arguments)
    return [
        ("plan", plan.hash),
        ("deployment", f"{plan.deployment}: {plan.model} on {plan.profile}"),
        ("engine", f"{plan.engine} (vLLM {plan.vllm_version}), {plan.image or 'private environment'}"),
        ("endpoint", f"{plan.base_url}, model {plan.served_name!r}"),
        ("weights", " ".join(model)),
        *(("option", " ".join(line)) for line in options),
        *([("gpus", ", ".join(plan.gpus.ids))] if plan.gpus and plan.gpus.ids else []),
        *(("environment", f"{name}={value}") for name, value in plan.environment.items()),
        *(
            row
            for m in plan.mounts
            for row in _in_two("mount", m.source, f"-> {m.target}" + (" (read-only)" if m.read_only else ""))
        ),
        *(
            _in_two("plugin", f"{plan.plugin.name} {plan.plugin.sha256[:12]}", "on PYTHONPATH")
            if plan.plugin
            else ()
        ),
        *(
            row
            for p in plan.patches
            for row in _in_two("patch", f"{p.name} {p.sha256[:12]}", f"over {p.module}")
        ),
    ]


def _in_two(label: str, first: str, second: str) -> list[tuple[str, str]]:
    """One row, or two where it would be wider than 80 columns."""
    if len(first) + 1 + len(second) <= WIDTH - len("environment  "):
        return [(label, f"{first} {second}")]
    return [(label, first), ("", f"  {second}")]
