"""Where templates/, patches/, the catalog and a user's lock are.

A wheel carries templates/ and patches/ inside the package (pyproject's force-include); a checkout, and so an
editable install, has them beside it. `importlib.resources` alone misses the second case.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
LOCK_FILE = Path("deckard.lock")  # of the working folder, as deckard.yaml is; weights/lockfile.py reads it


def _beside_or_inside(name: str) -> Path:
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def templates_dir() -> Path:
    """The folder of Jinja2 templates."""
    return _beside_or_inside("templates")


def patches_dir() -> Path:
    """The folder of patch sets, one folder per engine version."""
    return _beside_or_inside("patches")


def plugins_dir() -> Path:
    """The folder of vLLM plugins, one folder of modules per plugin."""
    return _beside_or_inside("plugins")


def catalog_dir() -> Path:
    """The folder of built-in profiles, models, engines and schemas."""
    return PACKAGE / "catalog"
