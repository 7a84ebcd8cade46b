"""The catalog with one line per entry, without YAML or pydantic, so that `profiles list` starts quickly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

Kind: TypeAlias = Literal["profiles", "models", "engines", "compat", "recipes"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The name and description of a catalog file."""

    name: str
    description: str


def names(kind: Kind) -> list[str]:
    """Return the sorted names of the built-in entries."""
    return sorted(path.stem for path in (catalog_dir() / kind).glob("*.yaml"))


def entries(kind: Kind) -> list[Entry]:
    """Return name and description of every entry. Tests validate the files themselves."""
    return [_entry(catalog_dir() / kind / f"{name}.yaml") for name in names(kind)]


def _entry(path: Path) -> Entry:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, value = line.partition(":")
        if key == "description" and colon:
            return Entry(name=path.stem, description=value.strip())
    raise BadInputError(f"{path.name}: 'description' is required")
