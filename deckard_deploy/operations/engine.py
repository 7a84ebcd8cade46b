"""The engine of a plan: its image or private environment, its patches, and the folders of its caches."""

import os
import stat
from pathlib import Path

from deckard_deploy.catalog import library
from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.patch_files import build_patches
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import patch_folder
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process import environment, locks
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.system.commands import Say
from deckard_deploy.system.files import translating_write_errors
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.folder import PRIVATE_FOLDER


def ensure_engine(plan: LaunchPlan, directory: StateDir, runtime: Runtime, report: Reporter) -> None:
    """Ensure the image or environment of a plan, its patches, and the folders of its caches.

    Raises EnvironmentUnfitError, NetworkError and IntegrityError.
    """
    runtime.ensure_engine(plan, report.say)
    for image in plan.images:
        verify_image_digest(image, runtime.image_digests(image))
    build_patches(plan, runtime, report)
    _make_private(directory.cache)
    # Without a user in the plan, docker runs the engine as a root without capabilities: it has the rights of
    # others.
    runs_as_other_user = plan.runtime == "docker" and plan.user is None
    for mount in plan.mounts:
        if not mount.read_only:
            _make_cache_folder(Path(mount.source), for_everyone=runs_as_other_user)
        elif runs_as_other_user:
            require_readable_by_everyone(Path(mount.source))


def require_installable_engine(plan: LaunchPlan, directory: StateDir, runtime: Runtime) -> None:
    """Raise the errors of `environment.require_installable` for an engine that this tool would install.

    Raises EnvironmentUnfitError for an image that is missing and that no registry has.
    """
    engine = library.engine(plan.engine)
    lock = engine.dependency_lock
    if plan.runtime == "process" and lock:
        environment.require_installable(directory.engines / plan.engine, locks.LOCKS[lock])
    is_own = engine.image_recipe is not None and plan.image == engine.image
    if is_own and runtime.missing_image(plan) is not None:
        raise EnvironmentUnfitError(
            f"{plan.image} is not here, and no registry has it",
            hint=f"in a checkout: {engine.image_recipe}; then --image with the name that it prints",
        )


def require_mounted_files(plan: LaunchPlan) -> None:
    """Raise EnvironmentUnfitError for a folder that the plan mounts and that nothing here makes."""
    needed = [Path(mount.source) for mount in plan.mounts if mount.read_only]
    if plan.gateway:
        needed.append(Path(plan.gateway.folder).parent)
    for path in needed:
        built = plan.patches and path.is_relative_to(patch_folder(plan))
        if not built and not path.exists():  # guard: F64
            raise EnvironmentUnfitError(
                f"{path} does not exist, and release {plan.hash} needs it; nothing was stopped",
                hint=f"deckard-deploy up --profile {plan.profile} --name {plan.deployment}",
            )


def verify_image_digest(image: str, digests: list[str]) -> None:
    """Raise IntegrityError when ./deckard.lock has the image with a digest that is not among `digests`."""
    lock = lockfile.read(lockfile.DEFAULT_PATH)
    locked = lock.images.get(image) if lock else None
    if locked and locked not in digests:  # guard: F51
        found = ", ".join(digests) or "from no registry"
        raise IntegrityError(
            f"{image} is {found} here, and {lockfile.DEFAULT_PATH} holds it to {locked}",
            hint=f"docker pull {image}; if the tag has moved, review it: deckard-deploy lock --check",
        )


def require_readable_by_everyone(folder: Path) -> None:
    """Raise EnvironmentUnfitError for a file that root without capabilities cannot read."""
    for path in (folder, *(path for path in folder.rglob("*") if PRIVATE_FOLDER not in path.parts)):
        found = path.stat()
        wanted = 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
        if found.st_uid != 0 and found.st_mode & wanted != wanted:  # guard: F48
            raise EnvironmentUnfitError(
                f"{path} may not be read by others, and the engine's container runs as another user",
                hint=f"chmod -R a+rX {folder}",
            )


def _make_private(cache: Path) -> None:
    """Create the folder of caches, for its owner alone: an engine executes the kernels in it."""
    with translating_write_errors(cache):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cache.stat().st_uid == os.getuid():
            cache.chmod(0o700)


def _make_cache_folder(folder: Path, *, for_everyone: bool) -> None:
    """Create the folder of one cache.

    for_everyone: writable by all users; the folder above keeps others out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if for_everyone and folder.stat().st_uid == os.getuid():
        folder.chmod(0o1777)


def installed_program(plan: LaunchPlan, directory: StateDir, say: Say) -> Path:
    """Return the `vllm` of the plan's engine. A missing engine is installed, if this tool has a lock for it.

    Raises EnvironmentUnfitError, NetworkError, IntegrityError (running.process.environment.install).
    """
    lock = library.engine(plan.engine).dependency_lock
    folder = directory.engines / plan.engine
    if lock:
        return environment.install(folder, lock=locks.LOCKS[lock], say=say).vllm
    program = folder / "bin" / "vllm"
    if not program.is_file():
        raise EnvironmentUnfitError(
            f"{plan.engine} runs in an environment of your own, and {folder} is none",
            hint=f"ln -sT /path/to/the/venv/with/vllm {folder}",
        )
    return program
