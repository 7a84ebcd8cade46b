"""A `vllm` package made of links with the patched files in it, for a vLLM that runs without a container.

site-packages is not changed. The folder goes first on PYTHONPATH. `importlib.metadata` answers as before,
because the metadata of the distribution stays in site-packages.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.patching.build import BuiltPatch
from deckard_deploy.patching.manifest import sha256

_SKIPPED = "__pycache__"  # of a real folder: its files are compiled again next to the links


def create_overlay(package: Path, built: Sequence[BuiltPatch], out: Path) -> Path:
    """Create `out/vllm` and return `out`, which must be first on PYTHONPATH.

    package: the folder of the installed vllm package. Its folders are linked as a whole, except those that
    contain a patched file. An existing tree of the same package and patches stays, because a running server
    imports from it; another one is replaced. Raises EnvironmentUnfitError if `package` is not a package.
    """
    package = package.resolve()
    if not (package / "__init__.py").is_file():
        raise EnvironmentUnfitError(
            f"{package} is not the folder of a Python package", hint="name the folder of vllm"
        )
    tree, description_file = out / "vllm", out / "made-of"
    patches = sorted(f"{patch.target} {patch.sha256}" for patch in built)
    description = "\n".join([str(package), *patches])
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        is_current = (
            tree.is_dir() and description_file.is_file() and description_file.read_text() == description
        )
        if is_current and _is_complete(package, tree, built):
            return out
        description_file.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".vllm-", dir=out) as scratch:
            fresh = Path(scratch) / "vllm"
            _create_tree(package, fresh, {_path_in_package(patch): patch.path for patch in built})
            if os.path.lexists(tree):
                shutil.rmtree(tree)
            fresh.rename(tree)
        description_file.write_text(description)
    return out


def _path_in_package(patch: BuiltPatch) -> PurePosixPath:
    return PurePosixPath(patch.target).relative_to("vllm")


def _is_complete(package: Path, tree: Path, built: Sequence[BuiltPatch]) -> bool:
    """Return True if the tree has every patched file, and an entry for each current entry of the package.

    The package may have got new entries: another build may have been installed in the same folder.
    """
    for patch in built:
        for folder in _path_in_package(patch).parents:
            if not _names(package / folder) <= _names(tree / folder):
                return False
    for patch in built:
        file = tree.parent / patch.target
        if not file.is_file() or sha256(file.read_bytes()) != patch.sha256:
            return False
    return True


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {entry.name for entry in folder.iterdir()} - {_SKIPPED}


def _create_tree(source: Path, folder: Path, patched: Mapping[PurePosixPath, Path]) -> None:
    """Link the entries of `source` into the new `folder`, and copy the patched files.

    patched: the patched file by its path relative to `folder`.
    """
    folder.mkdir(parents=True)
    files: dict[str, Path] = {}
    subfolders: dict[str, dict[PurePosixPath, Path]] = {}
    for path, file in patched.items():
        name = path.parts[0]
        if len(path.parts) == 1:
            files[name] = file
        else:
            subfolders.setdefault(name, {})[path.relative_to(name)] = file
    for entry in sorted(source.iterdir()):
        if entry.name not in files and entry.name not in subfolders and entry.name != _SKIPPED:
            (folder / entry.name).symlink_to(entry)
    for name, below in sorted(subfolders.items()):
        _create_tree(source / name, folder / name, below)
    for name, file in sorted(files.items()):
        # Not a link: a later build must not change a file that a running process may still import.
        shutil.copyfile(file, folder / name)
