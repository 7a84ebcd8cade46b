"""The built-in profiles, models and engines, and files in the same format from elsewhere."""

from functools import cache
from pathlib import Path
from typing import TypeVar

from deckard_deploy.catalog import strict_yaml
from deckard_deploy.catalog.listing import Kind, names
from deckard_deploy.catalog.specs import (
    Compatibility,
    EngineSpec,
    HardwareProfile,
    ModelSpec,
    RecipeSpec,
    Spec,
)
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir
from deckard_deploy.system.suggestion import closest

_LISTED = 12  # names in an error
_LISTED_BY = {"recipes": "deckard-deploy quantize --explain"}  # the other kinds have a verb of their name
SpecT = TypeVar("SpecT", bound=Spec)


@cache
def profile(name: str) -> HardwareProfile:
    """Return a built-in hardware profile. Raises BadInputError for an unknown name."""
    return _load("profiles", name, HardwareProfile)


@cache
def model(name: str) -> ModelSpec:
    """Return a built-in model. Raises BadInputError for an unknown name."""
    return _load("models", name, ModelSpec)


@cache
def engine(name: str) -> EngineSpec:
    """Return a built-in engine. Raises BadInputError for an unknown name."""
    return _load("engines", name, EngineSpec)


@cache
def compatibility(name: str) -> Compatibility:
    """Return a built-in compatibility launch line. Raises BadInputError for an unknown name."""
    return _load("compat", name, Compatibility)


@cache
def recipe(name: str) -> RecipeSpec:
    """Return a built-in recipe of `quantize`. Raises BadInputError for an unknown name."""
    return _load("recipes", name, RecipeSpec)


@cache
def wedged_below_w(gpu: str) -> float | None:
    """Return the watts below which a busy GPU is wedged; None if nobody measured it. gpu: nvidia-smi's name."""
    for name in names("profiles"):
        hardware = profile(name).hardware
        if hardware.gpu == gpu and hardware.wedged_below_w is not None:
            return hardware.wedged_below_w.value
    return None


def profile_from_file(path: Path) -> HardwareProfile:
    """Read a user's own profile. Raises BadInputError when the file cannot be read or is not a profile."""
    return validate(strict_yaml.parse(read_text(path), source=str(path)), HardwareProfile)


def model_from_file(path: Path) -> ModelSpec:
    """Read a user's own model. Raises BadInputError when the file cannot be read or is not a model."""
    return validate(strict_yaml.parse(read_text(path), source=str(path)), ModelSpec)


def recipe_from_file(path: Path) -> RecipeSpec:
    """Read a user's own recipe. Raises BadInputError when the file cannot be read or is not a recipe."""
    return validate(strict_yaml.parse(read_text(path), source=str(path)), RecipeSpec)


def source(kind: Kind, name: str) -> str:
    """Return the YAML of a built-in entry, with its comments."""
    return read_text(catalog_dir() / kind / f"{name}.yaml")


def read_text(path: Path) -> str:
    """Read a user's file as UTF-8 text. Raises BadInputError with one line for every failure."""
    try:
        if path.exists() and not path.is_file():  # reading a FIFO may block, reading a device may not end
            raise BadInputError(f"{path}: not a regular file")
        size = path.stat().st_size
        if size > strict_yaml.MAX_BYTES:
            raise BadInputError(f"{path}: {size} bytes: a deployment file is at most {strict_yaml.MAX_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _load(kind: Kind, name: str, spec: type[SpecT]) -> SpecT:
    path = catalog_dir() / kind / f"{name}.yaml"
    known = names(kind)
    if name not in known:
        # A list of all models would be longer than the line that a terminal shows.
        known_names = f"; known: {', '.join(known)}" if len(known) <= _LISTED else ""
        near = closest(name, known) or known_names
        noun = "compatibility line" if kind == "compat" else kind.removesuffix("s")
        raise BadInputError(
            f"no {noun} named {name[:80]!r}{near}", hint=_LISTED_BY.get(kind, f"deckard-deploy {kind}")
        )
    return validate(strict_yaml.parse(read_text(path), source=path.name), spec)
