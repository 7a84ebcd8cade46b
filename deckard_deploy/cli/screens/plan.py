"""A plan on the screen and as JSON."""

from typing import Any

import click

from deckard_deploy.cli.output import table
from deckard_deploy.cli.screens import memory, speed
from deckard_deploy.cli.screens.layout import WIDTH
from deckard_deploy.operations.plan import PlanView
from deckard_deploy.planning.arguments import option_lines
from deckard_deploy.planning.plan import LaunchPlan

Row = tuple[str, str]


def view_json(view: PlanView) -> dict[str, Any]:
    """Return the view for `plan --json` as plain data."""
    plan = view.planned.plan
    return {
        "hash": plan.hash,
        "current": view.current.hash if view.current else None,
        "changes": view.changes,
        "memory": memory.memory_json(view.planned.memory, view.fitting),
        "speed": speed.speed_json(view.planned.resolved),
        "drafter_measured": speed.measured_json(view.drafter),
        "plan": plan.model_dump(mode="json"),
    }


def print_plan(view: PlanView, *, explain: bool) -> None:
    """Print the plan, its memory and speed, and its changes. explain: formulas and sources too."""
    resolved = view.planned.resolved
    table(_rows(view.planned.plan))
    lines = memory.memory_lines(view.planned.memory, view.fitting, limit=resolved.model.context_limit)
    lines += speed.speed_lines(resolved)
    lines += speed.measured_lines(view.drafter)
    if explain:
        lines += memory.explained(view.planned.memory)
        lines += speed.explained(resolved)
    lines += _change_lines(view)
    for line in lines:
        click.echo(line)


def _change_lines(view: PlanView) -> list[str]:
    if view.current is None:
        return ["change       first deployment: nothing to replace"]
    if not view.changes:
        return [f"change       none: {view.planned.plan.hash} is the current release"]
    head = f"change       {view.current.hash} -> {view.planned.plan.hash}, a restart is needed:"
    return [head, *(f"  {change}" for change in view.changes)]


def _rows(plan: LaunchPlan) -> list[Row]:
    model, *options = option_lines(plan.arguments)
    rows = [
        ("plan", plan.hash),
        ("deployment", f"{plan.deployment}: {plan.model} on {plan.profile}"),
        ("engine", f"{plan.engine} (vLLM {plan.vllm_version}), {plan.image or 'private environment'}"),
        ("endpoint", f"{plan.base_url}, model {plan.served_name!r}"),
        ("weights", " ".join(model)),
    ]
    rows += [("option", " ".join(option)) for option in options]
    if plan.gpus and plan.gpus.ids:
        rows.append(("gpus", ", ".join(plan.gpus.ids)))
    rows += [("environment", f"{name}={value}") for name, value in plan.environment.items()]
    for mount in plan.mounts:
        read_only = " (read-only)" if mount.read_only else ""
        rows += _one_or_two("mount", mount.source, f"-> {mount.target}{read_only}")
    if plan.plugin:
        rows += _one_or_two("plugin", f"{plan.plugin.name} {plan.plugin.sha256[:12]}", "on PYTHONPATH")
    for patch in plan.patches:
        rows += _one_or_two("patch", f"{patch.name} {patch.sha256[:12]}", f"over {patch.module}")
    return rows


def _one_or_two(label: str, first: str, second: str) -> list[Row]:
    """Return one row, or two if one would be wider than 80 columns."""
    if len(first) + 1 + len(second) <= WIDTH - len("environment  "):
        return [(label, f"{first} {second}")]
    return [(label, first), ("", f"  {second}")]
