"""The model that a user names: of the catalog, a model file, a folder, or a repository on the hub."""

from pathlib import Path, PurePosixPath

from deckard_deploy.catalog import library
from deckard_deploy.catalog.specs import ModelSpec
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.planner import model_folder
from deckard_deploy.running.layout import StateDir


def find_model(reference: str, directory: StateDir | None, report: Reporter) -> ModelSpec:
    """Return the spec of a model reference, and report the warnings of a derived one.

    directory: keeps the configurations of repositories; None: the user's own. Raises BadInputError for an
    unknown name, and the errors of `derive_model`.
    """
    if reference.endswith((".yaml", ".yml")):
        return library.model_from_file(Path(reference).expanduser())
    if not is_outside_catalog(reference):
        return library.model(reference)
    from deckard_deploy.operations.derived_models import derive_model  # noqa: PLC0415  few models need it

    derived = derive_model(reference, directory, report)
    for warning in derived.warnings:
        report.say(f"warning  {derived.spec.name}: {warning}")
    return derived.spec


def is_outside_catalog(reference: str) -> bool:
    """Return True if the reference is a folder or a repository, not a name."""
    return "/" in reference or reference in (".", "..")


def folder_of(model: ModelSpec, directory: StateDir) -> Path:
    """Return the folder of a model's weights on this host."""
    return Path(model_folder(model, PurePosixPath(directory.models)))
