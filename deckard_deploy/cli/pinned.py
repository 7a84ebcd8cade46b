"""The images that ./deckard.lock holds a plan to."""

from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.resources import LOCK_FILE


def pinned(plan: LaunchPlan) -> LaunchPlan:
    """The plan with each image by the digest that ./deckard.lock has, if it has one. Raises BadInputError.

    Somebody else's launch line keeps its tag.
    """
    if plan.image is None or plan.compatibility or not LOCK_FILE.exists():
        return plan
    from deckard_deploy.weights import lockfile  # noqa: PLC0415  only where there is a lock

    lock = lockfile.read(LOCK_FILE)
    images = lock.images if lock else {}
    gateway = plan.gateway
    if gateway and gateway.image:
        gateway = gateway.model_copy(update={"image": _by_digest(gateway.image, images)})
    return plan.model_copy(update={"image": _by_digest(plan.image, images), "gateway": gateway})


def _by_digest(image: str, images: dict[str, str]) -> str:
    digest = images.get(image)
    return f"{image}@{digest}" if digest and "@" not in image else image
