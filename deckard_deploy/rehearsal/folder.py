"""A folder of generated weights, created atomically, and the libraries that write them."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.system.extras import install_command

MANIFEST = "tiny-gemma4.json"


def ensure_generated(
    folder: Path, description: Mapping[str, object], write_files: Callable[[Path], None]
) -> Path:
    """Ensure that `folder` has the files that `write_files` writes, and return it.

    description: names the content. A complete folder with this description stays, another one is replaced.
    Raises BadInputError if the folder has other files.
    """
    if _is_complete(folder, description):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise BadInputError(
            f"{folder} holds files that are not a tiny Gemma 4", hint="name a new folder, or empty this one"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if not _is_complete(folder, description):  # another process may have written it meanwhile
            _replace(folder, description, write_files)
    return folder


def _replace(folder: Path, description: Mapping[str, object], write_files: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh, stale = Path(scratch) / "fresh", Path(scratch) / "stale"
        fresh.mkdir()
        write_files(fresh)
        (fresh / MANIFEST).write_bytes(_manifest(fresh, description))
        if folder.exists():
            folder.rename(stale)
        fresh.rename(folder)


def _is_complete(folder: Path, description: Mapping[str, object]) -> bool:
    manifest = folder / MANIFEST
    return manifest.is_file() and manifest.read_bytes() == _manifest(folder, description)


def _manifest(folder: Path, description: Mapping[str, object]) -> bytes:
    sizes = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            sizes[path.name] = path.stat().st_size
    return (json.dumps({**description, "file_bytes": sizes}, indent=2) + "\n").encode()


def require_libraries() -> None:
    """Require the libraries that `gemma4` and `assistant` import. Raises EnvironmentUnfitError."""
    for library in ("numpy", "ml_dtypes", "safetensors"):
        if importlib.util.find_spec(library) is None:
            raise EnvironmentUnfitError(
                f"{library} is not installed; the tiny Gemma 4 is written with it",
                hint=install_command("cpu"),
            )
