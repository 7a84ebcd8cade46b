"""From which acceptance on a plan's drafter pays, in the terms of the engine's own counters."""

import json
from pathlib import PurePosixPath

from deckard_deploy.catalog import library, listing
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.roofline import drafting

# Below this a drafter is broken, however little it costs (0.2 % were seen where a release did not fit a checkpoint:
# vllm-project/vllm issue 41789).
BROKEN = 0.05


def break_even(plan: LaunchPlan) -> float | None:
    """Accepted draft tokens of all draft tokens, 0 to 1, below which the drafter slows decoding; None without one.

    With k tokens a draft, a step costs 1 + k * cost and yields 1 + accepted; it pays where accepted / k exceeds the
    cost of one drafted token, which is at least its weights against the target's (planning/roofline.py).
    """
    if "--speculative-config" not in plan.arguments:
        return None
    config = json.loads(plan.arguments[plan.arguments.index("--speculative-config") + 1])
    name = PurePosixPath(config.get("model") or "").name
    if not {name, plan.model} <= set(listing.names("models")):
        return BROKEN
    cost = drafting(library.model(plan.model), library.model(name))
    return max(BROKEN, cost.cost if cost else 0.0)
