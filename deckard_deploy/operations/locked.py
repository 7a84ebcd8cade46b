"""./deckard.lock applied to a plan: images by digest; with --locked all parts are required."""

from collections.abc import Iterator

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.manifests import hub_models, locked_manifest
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.resources import LOCK_FILE
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.lockfile import Lock


def apply_lock(plan: LaunchPlan) -> LaunchPlan:
    """Return the plan with each image by its digest in ./deckard.lock, if it has one.

    Raises BadInputError. A model card's launch line (--compat) keeps its tag.
    """
    if plan.image is None or plan.compatibility or not LOCK_FILE.exists():
        return plan
    lock = lockfile.read(LOCK_FILE)
    images = lock.images if lock else {}
    gateway = plan.gateway
    if gateway and gateway.image:
        gateway = gateway.model_copy(update={"image": _by_digest(gateway.image, images)})
    return plan.model_copy(update={"image": _by_digest(plan.image, images), "gateway": gateway})


def _by_digest(image: str, images: dict[str, str]) -> str:
    digest = images.get(image)
    return f"{image}@{digest}" if digest and "@" not in image else image


def require_locked(resolved: Resolved, plan: LaunchPlan) -> None:
    """Raise IntegrityError unless ./deckard.lock has every part of a plan that `apply_lock` returned.

    Raises BadInputError when there is no lock.
    """
    lock = lockfile.read(LOCK_FILE) or Lock()
    unlocked = list(_unlocked(resolved, plan, lock))
    if unlocked:
        raise IntegrityError(f"not in {LOCK_FILE}: {'; '.join(unlocked)}", hint="deckard-deploy lock")


def _unlocked(resolved: Resolved, plan: LaunchPlan, lock: Lock) -> Iterator[str]:
    if plan.compatibility:
        yield f"the folder of weights that --compat {plan.compatibility} mounts"
    if not plan.images and not resolved.engine.dependency_lock:
        yield f"the environment of {plan.engine}, which is your own"
    for model in hub_models(resolved):
        if locked_manifest(model, lock, source=LOCK_FILE) is None:
            yield f"model {model.name}"
    yield from _unlocked_images(plan, lock)
    hashes = lock.patches.get(resolved.engine.patch_set or "", {})
    for patch in plan.patches:
        if hashes.get(patch.name) != patch.sha256:
            yield f"patch {patch.name} {patch.sha256[:12]}"
    if plan.plugin and lock.plugins.get(plan.plugin.name) != plan.plugin.sha256:
        yield f"plugin {plan.plugin.name} {plan.plugin.sha256[:12]}"


def _unlocked_images(plan: LaunchPlan, lock: Lock) -> Iterator[str]:
    for image in plan.images:
        name, _, digest = image.partition("@")
        if not digest or digest not in (lock.images.get(name), lock.images.get(image)):
            yield f"image {name}"
