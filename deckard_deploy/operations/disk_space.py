"""The disk space for all downloads: weights and image together, by file system."""

import shutil
from collections import defaultdict

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.operations.manifests import hub_models, manifest_for
from deckard_deploy.operations.models import folder_of
from deckard_deploy.operations.options import DEFAULT_LOCK
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.runtime import DiskNeed, Runtime
from deckard_deploy.system.files import nearest_existing
from deckard_deploy.system.unknown import Unknown
from deckard_deploy.weights.pull import bytes_to_download


def require_disk_space(
    resolved: Resolved, plan: LaunchPlan, directory: StateDir, runtime: Runtime, report: Reporter
) -> None:
    """Check the space for the image and the weights together, before the first byte is fetched.

    Skipped if no image has to be pulled: `pull` checks the space for weights itself.
    Raises EnvironmentUnfitError, one line with every need of the file system that is too small.
    """
    image = runtime.missing_image(plan)
    if image is None:
        return
    if isinstance(image, Unknown):
        report.say(f"image    {plan.image}: {image}; the disk space for it is not checked")
        return
    check([image, *_weights(resolved, directory)])


def _weights(resolved: Resolved, directory: StateDir) -> list[DiskNeed]:
    if resolved.compatibility:
        return []
    needs = []
    for model in hub_models(resolved):
        folder = folder_of(model, directory)
        manifest = manifest_for(model, folder, DEFAULT_LOCK)
        needs.append(DiskNeed(model.name, folder, bytes_to_download(manifest, folder)))
    return needs


def check(needs: list[DiskNeed]) -> None:
    """Add up the needs of each file system. Raises EnvironmentUnfitError when one has too little space."""
    by_device: dict[int, list[DiskNeed]] = defaultdict(list)
    for need in needs:
        by_device[nearest_existing(need.folder).stat().st_dev].append(need)
    for together in by_device.values():
        folder = nearest_existing(together[0].folder)
        size = sum(need.size for need in together)
        free = shutil.disk_usage(folder).free
        if size > free:  # guard: F17
            parts = ", ".join(f"{need.size:,} for {need.what}" for need in together if need.size)
            raise EnvironmentUnfitError(
                f"{folder}: needs {size:,} bytes ({parts}), and {free:,} are free",
                hint=f"free {size - free:,} bytes there: docker system df",
            )
