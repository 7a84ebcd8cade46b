"""A `vllm` package made of links, with our files in place of theirs: a bind mount for a vLLM without a container.

site-packages stays as the installer left it. The folder goes first on PYTHONPATH; the distribution's metadata is still
found where it was, so `importlib.metadata` answers as before.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.patching.build import BuiltPatch
from deckard_deploy.patching.manifest import sha256

_SKIPPED = "__pycache__"  # of a real folder: its files are compiled afresh beside the links


def overlay(package: Path, built: Sequence[BuiltPatch], out: Path) -> Path:
    """Make `out/vllm` and return `out`, which belongs first on PYTHONPATH.

    package: the folder of the installed vllm package. Whole folders are linked except on the way to a patched file.
    A tree of the same package and patches is left alone, because a running server imports from it; another is
    replaced. Raises EnvironmentUnfitError when there is no such package.
    """
    package = package.resolve()
    if not (package / "__init__.py").is_file():
        raise EnvironmentUnfitError(
            f"{package} is not the folder of a Python package", hint="name the folder of vllm"
        )
    tree, made_of = out / "vllm", out / "made-of"
    wanted = "\n".join([str(package), *sorted(f"{patch.target} {patch.sha256}" for patch in built)])
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        if (
            tree.is_dir()
            and made_of.is_file()
            and made_of.read_text() == wanted
            and _is_whole(package, tree, built)
        ):
            return out
        made_of.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".vllm-", dir=out) as scratch:
            fresh = Path(scratch) / "vllm"
            _link(
                package,
                fresh,
                [(PurePosixPath(patch.target).relative_to("vllm"), patch.path) for patch in built],
            )
            _remove(tree)
            fresh.rename(tree)
        made_of.write_text(wanted)
    return out


def _is_whole(package: Path, tree: Path, built: Sequence[BuiltPatch]) -> bool:
    """Whether our files are in it, and a link for whatever the package has now: another build may have come there."""
    files = [(tree.parent / patch.target, patch.sha256) for patch in built]
    folders = {
        folder for patch in built for folder in PurePosixPath(patch.target).relative_to("vllm").parents
    }
    return all(_names(package / folder) <= _names(tree / folder) for folder in folders) and all(
        file.is_file() and sha256(file.read_bytes()) == digest for file, digest in files
    )


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} - {_SKIPPED} if folder.is_dir() else set()


def _link(source: Path, folder: Path, patched: Sequence[tuple[PurePosixPath, Path]]) -> None:
    folder.mkdir(parents=True)
    ours = {PurePosixPath(path.parts[0]).name for path, _ in patched}
    for entry in sorted(source.iterdir()):
        if entry.name not in ours and entry.name != _SKIPPED:
            (folder / entry.name).symlink_to(entry)
    for name in sorted(ours):
        below = [(path, file) for path, file in patched if path.parts[0] == name]
        if below[0][0].parts[1:]:
            _link(source / name, folder / name, [(path.relative_to(name), file) for path, file in below])
        else:
            # A copy, so that a later build does not change what a running process may still import.
            shutil.copyfile(below[0][1], folder / name)


def _remove(tree: Path) -> None:
    if os.path.lexists(tree):
        shutil.rmtree(tree)
