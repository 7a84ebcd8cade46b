"""`verify`: the files of a model against their hashes."""

from pathlib import Path

from deckard_deploy.catalog.specs import LocalFolder, ModelSpec
from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.manifests import hub_models, manifest_for
from deckard_deploy.operations.models import folder_of
from deckard_deploy.operations.options import Choice, LockUse
from deckard_deploy.operations.reporting import SILENT, Reporter
from deckard_deploy.running.layout import state_directory
from deckard_deploy.system.text import escaped
from deckard_deploy.weights.folder import ModelFolder, Problem
from deckard_deploy.weights.manifest import Manifest, total_bytes

_STRAY = "not in the repository, and an engine might load it"


Problems = dict[str, list[Problem]]


def find_problems(
    choice: Choice, state_dir: Path | None, report: Reporter, lock: LockUse, *, fast: bool = False
) -> Problems:
    """Return the wrong files by model. A model without hashes, as a folder of the user's own, has no entry.

    fast: compare size, times and inode with the last full check. Raises IntegrityError for a model of which no
    file is here, and the errors of `manifest_for`.
    """
    found = {}
    for model, folder in _folders(choice, state_dir, report):
        _require_files(model, folder.folder)
        manifest = manifest_for(model, folder.folder, lock)
        found[model.name] = _problems(model.name, folder, manifest, report, fast=fast)
    for name, folder, manifest in _own_folders(choice, state_dir):
        found[name] = _problems(name, folder, manifest, report, fast=fast, record=False)
    return found


def repair(
    choice: Choice, state_dir: Path | None, report: Reporter, lock: LockUse, *, fast: bool = False
) -> Problems:
    """Set wrong files aside, and pull them again. Return the files that are wrong after that, by model.

    fast: as for `find_problems`. Raises DeploymentBusyError, the errors of `manifest_for` and `ensure_pulled`, and
    IntegrityError for a wrong file of a folder of the user's own, which is never written to.
    """
    from deckard_deploy.operations.weights import ensure_pulled  # noqa: PLC0415  requests

    found = {}
    for model, folder in _folders(choice, state_dir, report):
        manifest = manifest_for(model, folder.folder, lock)
        problems = _problems(model.name, folder, manifest, report, fast=fast)
        if problems:
            _set_strays_aside(folder, manifest, report)
            ensure_pulled(model, folder.folder, report, lock)
            problems = _problems(model.name, folder, manifest, report, fast=True)
        found[model.name] = problems
    for name, own, manifest in _own_folders(choice, state_dir):
        problems = _problems(name, own, manifest, report, fast=fast, record=False)
        if problems:
            raise IntegrityError(
                f"{own.folder}/{problems[0].path}: {problems[0].cause}; no repository has it",
                hint="deckard-deploy repair SOURCE -o NEW",
            )
        found[name] = problems
    return found


def _folders(choice: Choice, state_dir: Path | None, report: Reporter) -> list[tuple[ModelSpec, ModelFolder]]:
    """Return each model of the choice that is from the hub, with its folder."""
    directory = state_directory(state_dir)
    found = []
    for model in hub_models(resolve_choice(choice, report, directory)):
        found.append((model, ModelFolder(folder_of(model, directory))))
    return found


def _own_folders(choice: Choice, state_dir: Path | None) -> list[tuple[str, ModelFolder, Manifest]]:
    """Return each folder of the user's own that has a manifest, as `repair` writes it."""
    resolved = resolve_choice(choice, SILENT, state_directory(state_dir))
    found = []
    for model in (resolved.model, resolved.drafter):
        if model and isinstance(model.weights, LocalFolder):
            folder = ModelFolder(Path(model.weights.folder))
            manifest = folder.manifest()
            if manifest:
                found.append((model.name, folder, manifest))
    return found


def _require_files(model: ModelSpec, folder: Path) -> None:
    """Raise IntegrityError for a model of which nothing is here, before the hub is asked for its hashes."""
    if not folder.is_dir() or not any(folder.iterdir()):
        raise IntegrityError(
            f"{model.name} was not pulled: nothing is in {folder}", hint="deckard-deploy pull"
        )


def _problems(  # noqa: PLR0913  the folder's own facts
    name: str,
    folder: ModelFolder,
    manifest: Manifest,
    report: Reporter,
    *,
    fast: bool,
    record: bool = True,
) -> list[Problem]:
    strays = [Problem(escaped(stray), _STRAY) for stray in folder.unexpected(manifest)]
    if fast:
        cause = "not as it was when it was hashed"
        return [Problem(file.path, cause) for file in folder.changed(manifest.needed)] + strays
    total = total_bytes(manifest.needed)
    with report.transfer(name) as display:
        problems = folder.check(list(manifest.needed), lambda done: display.show(done, total), record=record)
    return problems + strays


def _set_strays_aside(folder: ModelFolder, manifest: Manifest, report: Reporter) -> None:
    """Move the files that do not belong there away. Raises DeploymentBusyError, EnvironmentUnfitError."""
    strays = folder.unexpected(manifest)
    if strays:
        with folder.lock():
            for stray in strays:
                place = escaped(str(folder.quarantine(stray)))
                report.say(f"weights  {escaped(stray)}: {_STRAY}; now {place}")
