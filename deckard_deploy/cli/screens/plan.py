"""A plan on the screen and as JSON."""

from typing import Any

import click

from deckard_deploy.cli.screens import memory, replicas, shared, speed
from deckard_deploy.cli.screens.layout import INDENT, WIDTH, wrapped
from deckard_deploy.operations.plan import PlanView
from deckard_deploy.planning.arguments import option_lines
from deckard_deploy.planning.plan import LaunchPlan

Row = tuple[str, str]

# The options that decide memory and speed. The others are shown by --full.
_SHOWN_OPTIONS = (
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
    "--data-parallel-size",
    "--max-model-len",
    "--max-num-seqs",
    "--max-num-batched-tokens",
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
    "--kv-cache-dtype",
    "--quantization",
    "--enforce-eager",
)


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
        "api_limits": list(view.planned.resolved.engine.api_limits),
        "plan": plan.model_dump(mode="json"),
        "shared": shared.shared_json(view) if view.planned.shared else None,
        "replicas": replicas.group_json(view.group) if view.group else None,
    }


def print_plan(view: PlanView, *, explain: bool, full: bool) -> None:
    """Print the plan, its memory and speed, and its changes.

    explain: formulas and sources too. full: every option, environment variable, mount and patch.
    """
    resolved = view.planned.resolved
    plan = view.planned.plan
    rows = _identity_rows(plan)
    if full:
        rows += _full_rows(plan)
    lines = [f"{label:{INDENT}}{text}" for label, text in rows]
    if not full:
        lines += wrapped(f"{'settings':{INDENT}}{_settings(plan)}")
    lines += memory.memory_lines(view.planned.memory, view.fitting, limit=resolved.model.context_limit)
    lines += shared.shared_lines(view)
    lines += speed.speed_lines(resolved)
    lines += speed.measured_lines(view.drafter)
    if view.group:
        lines += replicas.group_lines(view.group)
    if explain:
        lines += memory.explained(view.planned.memory)
        lines += speed.explained(resolved)
    lines += [f"api limit    {limit}" for limit in resolved.engine.api_limits]
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


def _identity_rows(plan: LaunchPlan) -> list[Row]:
    model = option_lines(plan.arguments)[0]
    rows = [
        ("plan", plan.hash),
        ("deployment", f"{plan.deployment}: {plan.model} on {plan.profile}"),
        ("engine", f"{plan.engine} (vLLM {plan.vllm_version}), {plan.image or 'private environment'}"),
        ("endpoint", f"{plan.base_url}, model {plan.served_name!r}"),
        ("weights", " ".join(model)),
    ]
    if plan.gpus and plan.gpus.ids:
        rows.append(("gpus", ", ".join(plan.gpus.ids)))
    return rows


def _settings(plan: LaunchPlan) -> str:
    """Return the options that decide memory and speed, and the numbers of the parts that are not shown."""
    options = option_lines(plan.arguments)[1:]
    shown = [" ".join(option).removeprefix("--") for option in options if option[0] in _SHOWN_OPTIONS]
    counts = [
        _counted(len(options) - len(shown), "more option"),
        _counted(len(plan.environment), "environment variable"),
        _counted(len(plan.mounts), "mount"),
        _counted(len(plan.patches), "patch"),
        _counted(1 if plan.plugin else 0, "plugin"),
    ]
    folded = ", ".join(count for count in counts if count)
    return f"{', '.join(shown)}; and {folded} (--full)"


def _counted(number: int, noun: str) -> str:
    """Return a number and its noun; nothing for none."""
    if number == 0:
        return ""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number} {plural}"


def _full_rows(plan: LaunchPlan) -> list[Row]:
    rows = [("option", " ".join(option)) for option in option_lines(plan.arguments)[1:]]
    rows += [("environment", f"{name}={value}") for name, value in plan.environment.items()]
    for mount in plan.mounts:
        read_only = " (read-only)" if mount.read_only else ""
        rows += _one_or_two("mount", mount.source, f"-> {mount.target}{read_only}")
    if plan.plugin:
        rows += _one_or_two("plugin", f"{plan.plugin.name} {plan.plugin.sha256[:12]}", "on PYTHONPATH")
    if plan.request_filter:
        rows += _one_or_two(
            "filter", f"{plan.request_filter.name} {plan.request_filter.sha256[:12]}", "of requests"
        )
    for patch in plan.patches:
        rows += _one_or_two("patch", f"{patch.name} {patch.sha256[:12]}", f"over {patch.module}")
    return rows


def _one_or_two(label: str, first: str, second: str) -> list[Row]:
    """Return one row, or two if one would be wider than 80 columns."""
    if len(first) + 1 + len(second) <= WIDTH - len("environment  "):
        return [(label, f"{first} {second}")]
    return [(label, first), ("", f"  {second}")]
