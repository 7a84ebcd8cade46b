"""The model that a user names: of the catalog, added by the user, a model file, a folder, or a repository."""

from pathlib import Path, PurePosixPath

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.specs import ModelSpec
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.planner import model_folder
from deckard_deploy.running.layout import StateDir, state_directory


def find_model(reference: str, directory: StateDir | None, report: Reporter) -> ModelSpec:
    """Return the spec of a model reference, and report the warnings of a derived one.

    directory: has the added models and the configurations of repositories; None: the user's own. Raises
    BadInputError for an unknown name, and the errors of `derive_model`.
    """
    if reference.endswith((".yaml", ".yml")):
        return library.model_from_file(Path(reference).expanduser())
    if not is_outside_catalog(reference):
        return named_model(reference, directory)
    from deckard_deploy.operations.derived_models import derive_model  # noqa: PLC0415  few models need it

    derived = derive_model(reference, directory, report)
    for warning in derived.warnings:
        report.say(f"warning  {derived.spec.name}: {warning}")
    return derived.spec


def named_model(name: str, directory: StateDir | None) -> ModelSpec:
    """Return the model that the user added under this name, or the catalog's. Raises BadInputError."""
    own = own_model_file(name, directory)
    if own is not None:
        return library.model_from_file(own)
    return library.model(name)


def own_model_file(name: str, directory: StateDir | None) -> Path | None:
    """Return the file of a model that the user added; None if there is none of this name."""
    if directory is None:
        try:
            directory = state_directory(None)
        except EnvironmentUnfitError:  # an anonymous user in a container has no home, and so no models
            return None
    # The names are compared, not put into a path: a name that a user types may be any text.
    for path in directory.own_models.glob("*.yaml"):
        if path.stem == name:
            return path
    return None


def is_outside_catalog(reference: str) -> bool:
    """Return True if the reference is a folder or a repository, not a name."""
    return "/" in reference or reference in (".", "..")


def is_of_catalog(model: ModelSpec) -> bool:
    """Return True if the catalog has this very spec."""
    return model.name in listing.names("models") and model == library.model(model.name)


def folder_of(model: ModelSpec, directory: StateDir) -> Path:
    """Return the folder of a model's weights on this host."""
    return Path(model_folder(model, PurePosixPath(directory.models)))
