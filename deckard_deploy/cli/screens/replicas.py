"""Replicas and their front, as lines of text and as JSON."""

from typing import Any

from deckard_deploy.cli.screens import speed
from deckard_deploy.cli.screens.layout import INDENT, wrapped
from deckard_deploy.operations.plan import GroupPlan, HostPlan
from deckard_deploy.planning.memory.parts import readable_bytes
from deckard_deploy.planning.planner import VISIBLE_GPUS
from deckard_deploy.system.unknown import Unknown


def group_lines(group: GroupPlan) -> list[str]:
    """Return the parts of the machine, and the figures of all replicas together."""
    count = len(group.replicas)
    lines = [f"{'replicas':{INDENT}}{count}, behind {group.front.base_url}; the figures above are of one"]
    for planned in group.replicas:
        plan = planned.plan
        gpus = f"GPU {', '.join(_gpus(planned))}; " if _gpus(planned) else ""
        lines.append(f"{'':{INDENT}}{plan.deployment}: {gpus}port {plan.port}, for this tool alone")
    return lines + wrapped(f"{'in all':{INDENT}}{_total(group)}")


def _total(group: GroupPlan) -> str:
    """Return memory, KV cache and speed of all replicas, as far as they are known."""
    count = len(group.replicas)
    first = group.replicas[0]
    gpus = max(1, len(_gpus(first)))
    parts = []
    memory = first.memory
    if not isinstance(memory, Unknown):
        if memory.total:
            parts.append(f"{count * gpus} GPUs with {readable_bytes(count * gpus * memory.total)}")
        parts.append(f"KV cache for {count * memory.tokens:,} tokens ({memory.tokens:,} each)")
    for sequences, rate in _speeds(first):
        each = f"{rate:,.0f} each"
        if gpus > 1:
            each += f", {rate / gpus:,.0f} a GPU"
        parts.append(f"at most {count * rate:,.0f} tok/s with {count} x {sequences} sequences ({each})")
    return "; ".join(parts) or "not known"


def group_json(group: GroupPlan) -> dict[str, Any]:
    """Return the replicas for `plan --json`."""
    count, first = len(group.replicas), group.replicas[0]
    memory = first.memory
    return {
        "count": count,
        "base_url": group.front.base_url,
        "front": group.front.hash,
        "members": [
            {
                "deployment": each.plan.deployment,
                "plan": each.plan.hash,
                "gpus": _gpus(each),
                "port": each.plan.port,
            }
            for each in group.replicas
        ],
        "kv_cache_tokens": None if isinstance(memory, Unknown) else count * memory.tokens,
        "tokens_per_s": {
            str(count * sequences): round(count * rate, 1) for sequences, rate in _speeds(first)
        },
    }


def _gpus(planned: HostPlan) -> list[str]:
    return [name for name in planned.resolved.environment.get(VISIBLE_GPUS, "").split(",") if name]


def _speeds(planned: HostPlan) -> list[tuple[int, float]]:
    """Return sequences of one replica and their speed together, for one sequence and for all of a batch."""
    rows = speed.speed_json(planned.resolved).get("ceiling", [])
    shortest = [row for row in rows if row["context"] == speed.CONTEXTS[0]]
    return [(row["sequences"], row["tokens_per_s"]) for row in (*shortest[:1], *shortest[-1:])][
        : len(shortest)
    ]
