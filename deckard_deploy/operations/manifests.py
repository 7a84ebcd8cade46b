"""The manifest of files that the weights of a model must match."""

from pathlib import Path

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import HubRepository, ModelSpec
from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.options import LockUse
from deckard_deploy.weights import hub, lockfile
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.manifest import Manifest


def hub_models(resolved: Resolved) -> list[ModelSpec]:
    """Return the model and the drafter, each if its weights are on the hub."""
    models = []
    for model in (resolved.model, resolved.drafter):
        if model and isinstance(model.weights, HubRepository):
            models.append(model)
    return models


def manifest_for(model: ModelSpec, folder: Path, lock: LockUse) -> Manifest:
    """Return the manifest of a model: from the lock, else from its folder, else from the hub.

    Raises IntegrityError (no weights in it, or not in a required lock), NetworkError, BadInputError.
    """
    manifest = _manifest_for(model, folder, lock)
    if not any(file.path.endswith(".safetensors") for file in manifest.files):
        raise IntegrityError(
            f"{manifest.repo} has no safetensors at {manifest.commit[:12]}",
            hint="deckard-deploy lock --check",
        )
    return manifest


def _manifest_for(model: ModelSpec, folder: Path, lock: LockUse) -> Manifest:
    repository = repository_of(model)
    file = lock.file or lockfile.DEFAULT_PATH
    locked = lockfile.read(file)
    from_lock = locked_manifest(model, locked, source=file) if locked else None
    if from_lock:
        return from_lock
    if lock.required:
        raise IntegrityError(f"{model.name} is not in {file}", hint="deckard-deploy lock")
    known = ModelFolder(folder).manifest()
    if known and known.repo == repository.repo and repository.revision in (None, known.commit):
        return known
    return hub.connect().resolve(repository.repo, repository.revision)


def locked_manifest(model: ModelSpec, lock: lockfile.Lock, *, source: Path) -> Manifest | None:
    """Return the lock's manifest of a model.

    Raises IntegrityError when the catalog names another repository.
    """
    manifest = lock.models.get(model.name)
    if manifest is None:
        return None
    named = repository_of(model)
    locked = (manifest.repo, manifest.commit)
    wanted = (named.repo, named.revision or manifest.commit)
    if locked != wanted:
        raise IntegrityError(
            f"{source} holds {model.name} to {' at '.join(locked)}, and the catalog to {' at '.join(wanted)}",
            hint="deckard-deploy lock",
        )
    return manifest


def repository_of(model: ModelSpec) -> HubRepository:
    """Return the hub repository of one of `hub_models`. Raises TypeError for a model of another kind."""
    if not isinstance(model.weights, HubRepository):
        raise TypeError(f"{model.name} is not on the hub")
    return model.weights
