"""Paths of templates/, patches/, plugins/, the catalog and a user's lock file.

A wheel has templates/, patches/ and plugins/ inside the package (pyproject's force-include). A checkout, and
so an editable install, has them next to the package, where `importlib.resources` does not find them.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
LOCK_FILE = Path("deckard.lock")  # in the working folder, next to deckard.yaml; see weights/lockfile.py


def _data_dir(name: str) -> Path:
    inside = PACKAGE / name
    if inside.is_dir():
        return inside
    return PACKAGE.parent / name


def templates_dir() -> Path:
    """Return the folder of Jinja2 templates."""
    return _data_dir("templates")


def patches_dir() -> Path:
    """Return the folder of patch sets, one folder per engine version."""
    return _data_dir("patches")


def plugins_dir() -> Path:
    """Return the folder of vLLM plugins, one folder of modules per plugin."""
    return _data_dir("plugins")


def catalog_dir() -> Path:
    """Return the folder of built-in profiles, models, engines and schemas."""
    return PACKAGE / "catalog"
