"""`models add` and `models remove`: derived model specs that a user keeps under a name."""

from dataclasses import replace
from pathlib import Path

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.specs import ModelSpec
from deckard_deploy.errors import BadInputError, DeployError
from deckard_deploy.operations.derived_models import derive_model
from deckard_deploy.operations.models import folder_of, is_outside_catalog, own_model_file
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.system.files import private_folder, write_atomically
from deckard_deploy.weights.derivation import DerivedModel, model_file, model_name


def add_model(name: str, reference: str, state_dir: Path | None, report: Reporter) -> Path:
    """Derive the spec of a folder or a repository, or read a model file, and keep it. Return its file.

    Raises BadInputError for a name that is taken or is no name, and the errors of `derive_model`.
    """
    directory = state_directory(state_dir)
    _require_unused_name(name, directory)
    text = _spec_text(name, reference, directory, report)
    private_folder(directory.root)
    private_folder(directory.own_models)
    path = directory.own_models / f"{name}.yaml"
    write_atomically(path, text)
    return path


def _require_unused_name(name: str, directory: StateDir) -> None:
    if name[:63] != name or model_name(name) != name:
        raise BadInputError(
            f"{name[:80]!r} is no model name", hint="a-z, 0-9, '.', '_' and '-' only, 63 at most"
        )
    if name in listing.names("models"):
        raise BadInputError(f"{name} is a model of the catalog", hint="another name")
    if own_model_file(name, directory):
        raise BadInputError(f"{name} is there already", hint=f"deckard-deploy models remove {name}")


def _spec_text(name: str, reference: str, directory: StateDir, report: Reporter) -> str:
    """Return the YAML of the spec under its new name."""
    names = {"name": name, "served_name": name}
    if reference.endswith((".yaml", ".yml")):
        spec = library.model_from_file(Path(reference).expanduser()).model_copy(update={"name": name})
        return model_file(DerivedModel(spec, {}, ()))
    if not is_outside_catalog(reference):
        raise BadInputError(
            f"{reference[:80]} is no folder, repository or model file",
            hint="./FOLDER, OWNER/NAME[@REVISION] or FILE.yaml",
        )
    derived = derive_model(reference, directory, report)
    for warning in derived.warnings:
        report.say(f"warning  {name}: {warning}")
    return model_file(replace(derived, spec=derived.spec.model_copy(update=names)))


def list_models(state_dir: Path | None) -> list[tuple[str, str]]:
    """Return name and description of each model that the user added; of a damaged file its fault."""
    rows = []
    for path in sorted(state_directory(state_dir).own_models.glob("*.yaml")):
        try:
            description = library.model_from_file(path).description
        except DeployError as error:
            description = f"damaged: {error.message}"
        rows.append((path.stem, description))
    return rows


def remove_model(name: str, state_dir: Path | None) -> Path | None:
    """Remove an added model's file. Return the folder of its weights if it is there: nothing removes it.

    What runs goes on: its plan has the spec. Raises BadInputError if the user added no such model.
    """
    directory = state_directory(state_dir)
    path = own_model_file(name, directory)
    if path is None:
        raise BadInputError(f"no model named {name[:80]!r} was added", hint="deckard-deploy models list")
    folder = _weights_folder(path, directory)
    path.unlink(missing_ok=True)
    return folder


def _weights_folder(path: Path, directory: StateDir) -> Path | None:
    try:
        spec: ModelSpec = library.model_from_file(path)
    except DeployError:
        return None
    folder = folder_of(spec, directory)
    return folder if folder.is_dir() else None
