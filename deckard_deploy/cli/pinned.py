"""The image that ./deckard.lock holds a plan to."""

from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.resources import LOCK_FILE


def pinned(plan: LaunchPlan) -> LaunchPlan:
    """The plan with its image by the digest that ./deckard.lock has, if it has one. Raises BadInputError.

    Somebody else's launch line keeps its tag.
    """
    if plan.image is None or plan.compatibility or not LOCK_FILE.exists():
        return plan
    from deckard_deploy.weights import lockfile  # noqa: PLC0415  only where there is a lock

    lock = lockfile.read(LOCK_FILE)
    digest = lock.images.get(plan.image) if lock else None
    if digest is None or "@" in plan.image:
        return plan
    return plan.model_copy(update={"image": f"{plan.image}@{digest}"})
