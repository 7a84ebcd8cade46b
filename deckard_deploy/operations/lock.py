"""`lock`: the commits, digests and hashes of all parts of a deployment."""

import os
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import EnvironmentUnfitError, NetworkError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.manifests import hub_models, repository_of
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.patches import needed_plugin
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.patching import plugin
from deckard_deploy.patching.manifest import load_patch_set
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.running.docker import images, registry
from deckard_deploy.running.docker.client import DockerClient
from deckard_deploy.weights import hub, lockfile
from deckard_deploy.weights.lockfile import Lock


class LockUpdate(NamedTuple):
    """A lock that was resolved now, and the differences to the one in the file, one line each."""

    path: Path
    lock: Lock
    differences: list[str]


def resolve_lock(choice: Choice, path: Path | None, report: Reporter) -> LockUpdate:
    """Resolve a choice now, and compare it with a lock. Nothing is written.

    path: the file of the lock; None for ./deckard.lock. Entries of other deployments stay as they are. Raises
    NetworkError, BadInputError (the file is no lock).
    """
    resolved = resolve_choice(choice, report)
    path = path or lockfile.DEFAULT_PATH
    old = lockfile.read(path) or Lock()
    new = _resolve(resolved, report)
    return LockUpdate(path, old.updated(new), list(lockfile.differences(old, new)))


def write_lock(update: LockUpdate) -> None:
    """Write the lock to its file. Raises EnvironmentUnfitError."""
    lockfile.write(update.path, update.lock)


def _resolve(resolved: Resolved, report: Reporter) -> Lock:
    models = {}
    for model in hub_models(resolved):
        repository = repository_of(model)
        models[model.name] = hub.connect().resolve(repository.repo, repository.revision)
    image_digests = {}
    for image in build_plan(resolved).images:
        digest = _digest(image, report)
        if digest:
            image_digests[image] = digest
    patches = {}
    name = resolved.engine.patch_set
    if name:
        patches[name] = {patch.name: patch.patched_sha256 for patch in load_patch_set(name).patches}
    plugins = {}
    for each in (resolved.engine.plugin, needed_plugin(resolved)):
        if each:
            plugins[each] = plugin.wheel_sha256(each)
    return Lock(models=models, images=image_digests, patches=patches, plugins=plugins)


def _digest(image: str, report: Reporter) -> str | None:
    """Return the image's digest: from its reference, or else from its registry; None without either."""
    return image.partition("@")[2] or _registry_digest(image, report)


def _registry_digest(image: str, report: Reporter) -> str | None:
    """Return the digest that the tag has in its registry now, or else the digest it was pulled with."""
    engine = DockerClient(environment=dict(os.environ), say=report.command)
    try:
        return registry.digest_of(engine, image)
    except EnvironmentUnfitError as error:
        report.say(f"lock     {image}: no digest: {error.message}; try: {error.hint}")
        return None
    except NetworkError as error:
        local = next(iter(images.digests(engine, image)), None)
        outcome = f"locked as it was pulled: {local}" if local else f"no digest; {error.hint}"
        report.say(f"lock     {error.message}; {outcome}")
        return local
