"""The check of a drafter at the end of a start."""

from deckard_deploy.errors import NetworkError, StartFailedError
from deckard_deploy.measuring.draft_acceptance import MIN_ACCEPTANCE, Advice, advise, measure
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.system.commands import Say
from deckard_deploy.system.http import EndpointCredentials


def check_drafter_acceptance(plan: LaunchPlan, access: EndpointCredentials, say: Say) -> bool:
    """Measure draft acceptance and report advice. Return False if the plan has no drafter.

    A measurement that fails is reported, and stops nothing.
    Raises StartFailedError below the floor: such a drafter slows every answer down.
    """
    speculative = plan.speculative
    if speculative is None:
        return False
    try:
        measured = measure(plan.base_url, plan.served_name, access)
    except NetworkError as error:
        say(f"drafter  not measured: {error.message}")
        return True
    # Left out, the number is the drafter's own: as many positions were counted.
    tokens = speculative.num_speculative_tokens or len(measured.acceptance_by_position)
    verdict = advise(measured, tokens)
    if verdict.advice is Advice.OFF:
        raise StartFailedError(
            f"the drafter does not fit: {verdict.detail}, and below {MIN_ACCEPTANCE:.0%} "
            "it only slows the endpoint down",
            hint="deckard-deploy up --drafter none",
        )
    advice = str(verdict.advice)
    if verdict.advice is Advice.LOWER:
        advice = f"{verdict.advice}: --set drafter_tokens={verdict.tokens}"
    say(f"drafter  {advice} ({verdict.detail})")
    return True
