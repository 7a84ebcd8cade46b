"""Is there room for what has to be fetched? Weights and image together, per file system, before the first byte."""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli import weights
from deckard_deploy.cli.output import say
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.docker import images, registry
from deckard_deploy.running.docker.client import DockerEngine
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.files import nearest_existing
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.pull import bytes_to_come

# An image's layers unpacked, over their size as they are sent. gzip made 1,008,806,376 bytes of 2,100,705,280 of torch
# and vLLM 0.19.1 (CPU build, `tar -c torch vllm | gzip | wc -c`); other images differ, so this is an estimate.
UNPACKED = 2


class Need(NamedTuple):
    """Bytes that will land in a folder, which need not be there yet."""

    what: str
    folder: Path
    size: int


def require_room(resolved: Resolved, plan: LaunchPlan, directory: StateDir, engine: DockerEngine) -> None:
    """Nothing to do when the image is here: `pull` then looks for the weights' room alone.

    Raises EnvironmentUnfitError, one line with every need of the file system that is too small.
    """
    if plan.image is None or images.image_id(engine, plan.image):
        return
    image = image_need(engine, plan.image, plan.platform)
    if image is None:
        say(
            f"image    {plan.image}: how large it is, or where docker keeps it, is not known; its room is not checked"
        )
        return
    check([image, *_weights(resolved, directory)])


def image_need(engine: DockerEngine, image: str, platform: str | None) -> Need | None:
    """What the image will take where docker keeps images; None when that cannot be known from here."""
    size = registry.layer_bytes(engine, image, platform)
    root = images.root_folder(engine)
    return Need("the image", root, UNPACKED * size) if size is not None and root.exists() else None


def _weights(resolved: Resolved, directory: StateDir) -> Iterator[Need]:

    for model in weights.hub_models(resolved) if not resolved.compatibility else ():
        folder = directory.models / model.name
        manifest = weights.manifest_for(model, folder, lock_file=lockfile.DEFAULT, locked=False)
        yield Need(model.name, folder, bytes_to_come(manifest, folder))


def check(needs: list[Need]) -> None:
    """Add up per file system. Raises EnvironmentUnfitError."""
    together: dict[int, list[Need]] = defaultdict(list)
    for need in needs:
        together[nearest_existing(need.folder).stat().st_dev].append(need)
    for landing in together.values():
        folder = nearest_existing(landing[0].folder)
        size, free = sum(need.size for need in landing), shutil.disk_usage(folder).free
        if size > free:  # guard: F17
            parts = ", ".join(f"{need.size:,} for {need.what}" for need in landing if need.size)
            raise EnvironmentUnfitError(
                f"{folder}: needs {size:,} bytes ({parts}), and {free:,} are free",
                hint=f"free {size - free:,} bytes there: docker system df",
            )
