"""The catalog in one line an entry, read without YAML or pydantic: `profiles list` must start as fast as `--help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

Kind: TypeAlias = Literal["profiles", "models", "engines", "compat"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A catalog file in one line."""

    name: str
    description: str


def names(kind: Kind) -> list[str]:
    """The names of the built-in entries, sorted."""
    return sorted(path.stem for path in (catalog_dir() / kind).glob("*.yaml"))


def entries(kind: Kind) -> list[Entry]:
    """Name and description of every entry. Tests validate the files themselves."""
    return [_entry(catalog_dir() / kind / f"{name}.yaml") for name in names(kind)]


def _entry(path: Path) -> Entry:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, value = line.partition(":")
        if key == "description" and colon:
            return Entry(name=path.stem, description=value.strip())
    raise BadInputError(f"{path.name}: 'description' is required")
