"""A `vllm` package made of links, with our files in place of theirs: a bind mount for a vLLM without a container.

site-packages stays as the installer left it. The folder goes first on PYTHONPATH; the distribution's metadata is still
found where it was, so `importlib.metadata` answers as before.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.patching.builds import BuiltPatch

_SKIPPED = "__pycache__"  # of a real folder: its files are compiled afresh beside the links


def overlay(package: Path, built: Sequence[BuiltPatch], out: Path) -> Path:
    """Make `out/vllm` and return `out`, which belongs first on PYTHONPATH.

    package: the folder of the installed vllm package. Whole folders are linked except on the way to a patched file.
    What an earlier call left in `out/vllm` is replaced. Raises EnvironmentUnfitError when there is no such package.
    """
    package = package.resolve()
    if not (package / "__init__.py").is_file():
        raise EnvironmentUnfitError(f"{package} is not the folder of a Python package", hint="name the folder of vllm")
    fresh, tree = out / ".vllm.part", out / "vllm"
    _remove(fresh)
    _link(package, fresh, [(PurePosixPath(patch.target).relative_to("vllm"), patch.path) for patch in built])
    _remove(tree)
    fresh.rename(tree)
    return out


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
