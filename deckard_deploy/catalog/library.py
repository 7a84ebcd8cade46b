"""The built-in profiles, models and engines, and files in the same format from elsewhere."""

from functools import cache
from pathlib import Path
from typing import TypeVar

from deckard_deploy.catalog import strict_yaml
from deckard_deploy.catalog.listing import Kind, names
from deckard_deploy.catalog.specs import Compatibility, EngineSpec, HardwareProfile, ModelSpec, Spec
from deckard_deploy.catalog.validation import closest, validate
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

S = TypeVar("S", bound=Spec)


@cache
def profile(name: str) -> HardwareProfile:
    """A built-in hardware profile. Raises BadInputError for a name that is not in the catalog."""
    return _load("profiles", name, HardwareProfile)


@cache
def model(name: str) -> ModelSpec:
    """A built-in model. Raises BadInputError for a name that is not in the catalog."""
    return _load("models", name, ModelSpec)


@cache
def engine(name: str) -> EngineSpec:
    """A built-in engine. Raises BadInputError for a name that is not in the catalog."""
    return _load("engines", name, EngineSpec)


@cache
def compatibility(name: str) -> Compatibility:
    """A built-in compatibility launch line. Raises BadInputError for an unknown name."""
    return _load("compat", name, Compatibility)


def profile_from_file(path: Path) -> HardwareProfile:
    """A user's own profile. Raises BadInputError when it cannot be read or is not a profile."""
    return validate(strict_yaml.parse(read_text(path), source=str(path)), HardwareProfile)


def source(kind: Kind, name: str) -> str:
    """The YAML of a built-in entry, comments and all."""
    return read_text(catalog_dir() / kind / f"{name}.yaml")


def read_text(path: Path) -> str:
    """A user's file as UTF-8 text. Raises BadInputError in one line for whatever is wrong with it."""
    try:
        if path.exists() and not path.is_file():  # a FIFO would wait for ever, a device would never end
            raise BadInputError(f"{path}: not a regular file")
        if (size := path.stat().st_size) > strict_yaml.MAX_BYTES:
            raise BadInputError(f"{path}: {size} bytes: a deployment file is at most {strict_yaml.MAX_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _load(kind: Kind, name: str, spec: type[S]) -> S:
    path = catalog_dir() / kind / f"{name}.yaml"
    if name not in names(kind):
        known = names(kind)
        hint = closest(name, known) or "; known: " + ", ".join(known)
        noun = "compatibility line" if kind == "compat" else kind.removesuffix("s")
        raise BadInputError(f"no {noun} named {name[:80]!r}{hint}")
    return validate(strict_yaml.parse(read_text(path), source=path.name), spec)
