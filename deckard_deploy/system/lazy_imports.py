"""Packages whose modules load at first use (SPEC 1, https://scientific-python.org/specs/spec-0001/)."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType


def submodule_loader(package: str) -> Callable[[str], ModuleType]:
    """Return the `__getattr__` of a package: it imports the submodule of the name that is asked for."""

    def load(name: str) -> ModuleType:
        module = f"{package}.{name}"
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return load
