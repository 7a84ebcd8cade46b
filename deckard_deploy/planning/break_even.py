"""The draft acceptance above which a plan's drafter speeds decoding up, in terms of the engine's counters."""

from pathlib import PurePosixPath

from deckard_deploy.catalog import library, listing
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.roofline import drafting

# A drafter with less acceptance is broken, however little it costs: 0.2 % were measured where a release did
# not support a checkpoint (vllm-project/vllm issue 41789).
BROKEN_ACCEPTANCE = 0.05


def break_even(plan: LaunchPlan) -> float | None:
    """Return the accepted / drafted tokens (0 to 1) below which a drafter slows decoding; None without one.

    With k tokens per draft, a step costs 1 + k * cost and yields 1 + accepted tokens. The drafter therefore
    pays where accepted / k exceeds the cost of one drafted token: at least its weights against the target's
    (planning/roofline.py).
    """
    speculative = plan.speculative
    if speculative is None:
        return None
    drafter_name = PurePosixPath(speculative.model or "").name
    known_models = listing.names("models")
    if plan.model not in known_models or drafter_name not in known_models:
        return BROKEN_ACCEPTANCE
    estimate = drafting(library.model(plan.model), library.model(drafter_name), plan.lm_head)
    if estimate is None:
        return BROKEN_ACCEPTANCE
    return max(BROKEN_ACCEPTANCE, estimate.cost)
