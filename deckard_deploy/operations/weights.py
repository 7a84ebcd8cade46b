"""The weights of a choice: generated, pulled, or a folder of the user's own."""

from pathlib import Path
from typing import cast

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Generated, HubRepository, LocalFolder, ModelSpec
from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.manifests import manifest_for
from deckard_deploy.operations.models import folder_of
from deckard_deploy.operations.options import DEFAULT_LOCK, LockUse
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.rehearsal.folder import require_libraries
from deckard_deploy.running.layout import StateDir, home_required
from deckard_deploy.system.files import remove_folder
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.strict_json import read_object


def ensure_pulled(
    model: ModelSpec,
    folder: Path,
    report: Reporter,
    lock: LockUse = DEFAULT_LOCK,
) -> int:
    """Pull the missing files of a model, and verify the others. Return the bytes of the missing files.

    Raises the errors of `manifest_for` and `weights.pull.pull`.
    """
    manifest = manifest_for(model, folder, lock)
    with report.transfer(model.name) as display:
        try:
            return pull(manifest, folder, PullReporter(report.say, display.show))
        except KeyboardInterrupt:
            report.say("weights  what came is kept: the same command goes on there")
            raise


def ensure_weights(resolved: Resolved, directory: StateDir, report: Reporter) -> None:
    """Make sure the weights are on disk: generate a tiny model, or pull missing files and verify the others.

    ./deckard.lock decides when it has the model. Raises EnvironmentUnfitError, NetworkError, IntegrityError,
    DeploymentBusyError (weights.pull).
    """
    if resolved.compatibility:
        _require_user_folder(resolved)
        return
    for model in (resolved.model, resolved.drafter):
        if model and model.weights:
            ensure_model(model, folder_of(model, directory), report)
    if resolved.drafter and resolved.drafter.weights:
        drafter = folder_of(resolved.drafter, directory)
        require_same_vocabulary(folder_of(resolved.model, directory), drafter)


def require_same_vocabulary(target: Path, drafter: Path) -> None:
    """Raise IntegrityError for a drafter with another vocabulary.

    vLLM notices it late for a whole second model, after its imports, and never for other drafters.
    """
    ours = _vocabulary_size(target)
    other = _vocabulary_size(drafter)
    if ours and other and ours != other:  # guard: F60
        raise IntegrityError(
            f"the drafter in {drafter} has a vocabulary of {other} tokens, and the model one of {ours}",
            hint="another --drafter, or --drafter none",
        )


def _vocabulary_size(folder: Path) -> int | None:
    config = read_object(folder / "config.json")
    text = config.get("text_config", config)
    found = text.get("vocab_size") if isinstance(text, dict) else None
    return found if isinstance(found, int) else None


def _require_user_folder(resolved: Resolved) -> None:
    """Check the folder that a launch line of the user's own mounts. The tool writes nothing there."""
    source = resolved.compatibility.model_source if resolved.compatibility else ""
    with home_required():
        folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        weights = resolved.model.weights
        repo = weights.repo if isinstance(weights, HubRepository) else resolved.model.name
        raise EnvironmentUnfitError(
            f"no weights in {folder}", hint=f"hf download {repo} --local-dir {folder}"
        )


def ensure_model(model: ModelSpec, folder: Path, report: Reporter) -> None:
    """Make sure the weights of one model are in `folder`. Raises the errors of `ensure_weights`."""
    if isinstance(model.weights, LocalFolder):
        report.say(f"weights  {model.name} in {folder}, which is your own: read, and never written")
        return
    report.say(f"weights  {model.name} in {folder}")
    if isinstance(model.weights, Generated):
        generate(model, folder)
    else:
        ensure_pulled(model, folder, report)


def generate(model: ModelSpec, folder: Path) -> None:
    """Write a model that this tool generates. Raises EnvironmentUnfitError without the libraries for it."""
    if not isinstance(model.weights, Generated):
        raise TypeError(f"{model.name} is not generated")
    require_libraries()
    from deckard_deploy.rehearsal import assistant, gemma4  # noqa: PLC0415  numpy, which is an extra

    if model.weights.generator == "tiny-assistant":
        assistant.write(folder, kind=model.weights.kind)
    else:
        # The catalog gives a generated model only a format that the generator writes.
        quantization = cast("gemma4.Quantization", model.quantization)
        gemma4.write(folder, quantization=quantization, form=model.weights.form)


def remove_generated(directory: StateDir, report: Reporter) -> None:
    """Remove the models that this tool generated. Downloaded models stay."""
    for name in listing.names("models"):
        folder = directory.models / name
        if isinstance(library.model(name).weights, Generated) and folder.is_dir():
            remove_folder(folder)
            report.say(f"removed  {folder}")
