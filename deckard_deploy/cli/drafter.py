"""What a start finds out about its drafter, and what it does about it."""

import json
from collections.abc import Callable

from deckard_deploy.errors import NetworkError, StartFailedError
from deckard_deploy.measuring.draft_acceptance import FLOOR, Advice, judge, measure
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.system.http import Access

Say = Callable[[str], None]
_OPTION = "--speculative-config"


def prove_drafter(plan: LaunchPlan, access: Access, say: Say) -> bool:
    """Measure the acceptance of a plan that drafts, and say what to do; whether it drafts.

    Raises StartFailedError below the floor: such a drafter slows every answer down, and an endpoint without it is one
    option away. What could not be measured is said, and stops nothing.
    """
    if _OPTION not in plan.arguments:
        return False
    config = json.loads(plan.arguments[plan.arguments.index(_OPTION) + 1])
    try:
        measured = measure(plan.base_url, plan.served_name, access)
    except NetworkError as error:
        say(f"drafter  not measured: {error.message}")
        return True
    # Left out, it is the drafter's own number: that many positions were counted.
    verdict = judge(measured, config.get("num_speculative_tokens") or len(measured.acceptance_by_position))
    if verdict.advice is Advice.OFF:
        raise StartFailedError(
            f"the drafter does not fit: {verdict.detail}, and below {FLOOR:.0%} it only slows the endpoint down",
            hint="deckard-deploy up --drafter none",
        )
    advice = (
        f"{verdict.advice}: --set drafter_tokens={verdict.tokens}"
        if verdict.advice is Advice.LOWER
        else verdict.advice
    )
    say(f"drafter  {advice} ({verdict.detail})")
    return True
