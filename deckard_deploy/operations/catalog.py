"""The entries of the catalog, for `profiles`, `models` and `engines`."""

from pathlib import Path
from typing import Literal

from deckard_deploy.catalog import library, listing
from deckard_deploy.operations.derived_models import derive_model
from deckard_deploy.operations.models import find_model, is_outside_catalog, own_model_file
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.weights.derivation import model_file

Kind = Literal["profiles", "models", "engines"]
_LOADERS = {"profiles": library.profile, "engines": library.engine}


def entry_json(kind: Kind, name: str, state_dir: Path | None = None) -> str:
    """Return one entry as JSON. name: of the catalog; for a model also an added one, a folder or a repository.

    Raises BadInputError when there is no such one, and the errors of `derive_model`.
    """
    if kind == "models":
        return find_model(name, state_directory(state_dir), SILENT).model_dump_json(indent=2)
    return _LOADERS[kind](name).model_dump_json(indent=2)


def entry_source(kind: Kind, name: str, state_dir: Path | None = None) -> str:
    """Return one entry's YAML, with the sources in its comments.

    name: as for `entry_json`. Raises as `entry_json`.
    """
    if kind == "models":
        return _model_source(name, state_directory(state_dir))
    _LOADERS[kind](name)
    return library.source(kind, name)


def _model_source(name: str, directory: StateDir) -> str:
    if is_outside_catalog(name):
        return model_file(derive_model(name, directory, SILENT))
    own = own_model_file(name, directory)
    if own is not None:
        return library.read_text(own)
    library.model(name)
    return library.source("models", name)


def engine_abilities() -> list[str]:
    """Return one line for each engine: its drafting methods, its formats, and its patches or plugin."""
    lines = []
    for name in listing.names("engines"):
        engine = library.engine(name)
        if engine.plugin:
            ours = f"plugin {engine.plugin}"
        elif engine.patch_set:
            ours = f"patches {engine.patch_set}"
        else:
            ours = "nothing of ours"
        methods = ", ".join(engine.drafter_methods) or "nothing"
        lines.append(f"{name}: drafts with {methods}; loads {', '.join(engine.quantizations)}; {ours}")
    return lines
