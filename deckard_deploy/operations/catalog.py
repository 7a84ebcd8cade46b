"""The entries of the catalog, for `profiles`, `models` and `engines`."""

from typing import Literal

from deckard_deploy.catalog import library, listing

Kind = Literal["profiles", "models", "engines"]
_LOADERS = {"profiles": library.profile, "models": library.model, "engines": library.engine}


def entry_json(kind: Kind, name: str) -> str:
    """Return one entry as JSON. Raises BadInputError when there is no such one."""
    return _LOADERS[kind](name).model_dump_json(indent=2)


def entry_source(kind: Kind, name: str) -> str:
    """Return one entry's YAML, with the sources in its comments.

    Raises BadInputError when there is no such one.
    """
    _LOADERS[kind](name)
    return library.source(kind, name)


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
