"""Paths of templates/, patches/, plugins/, the catalog and a user's lock file.

A wheel has templates/, patches/ and plugins/ inside the package (pyproject's force-include). A checkout, and
so an editable install, has them next to the package, where `importlib.resources` does not find them.
"""

from pathlib import Path

from deckard_deploy import __version__

PACKAGE = Path(__file__).resolve().parent
LOCK_FILE = Path("deckard.lock")  # in the working folder, next to deckard.yaml; see weights/lockfile.py


def tool_version() -> str:
    """Return the version of this tool, with the commit of a checkout."""
    found = _commit()
    return f"{__version__} ({found})" if found else __version__


def _commit() -> str | None:
    """Return the first twelve digits of the checkout's commit; None for an installed package."""
    git = PACKAGE.parent / ".git"
    try:
        if git.is_file():  # a work tree: `gitdir: PATH`
            git = (git.parent / git.read_text().partition("gitdir: ")[2].strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head[:12]
        shared = git / "commondir"
        if shared.is_file():
            git = (git / shared.read_text().strip()).resolve()
        return _commit_of(git, head.removeprefix("ref: "))
    except OSError:
        return None


def _commit_of(git: Path, reference: str) -> str | None:
    if (git / reference).is_file():
        return (git / reference).read_text().strip()[:12]
    for line in (git / "packed-refs").read_text().splitlines():
        digits, _, name = line.partition(" ")
        if name == reference:
            return digits[:12]
    return None


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
