"""A repaired copy of a checkpoint folder, complete or not there.

The copy is written into a hidden folder next to its place, and renamed at the end. config.json, without which no engine
and no `up` takes a folder, is written last: a crash at any moment leaves nothing that could be served.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.system.files import (
    clear_leftovers_of,
    remove_folder,
    sync_file,
    sync_folder,
    temporary_prefix,
    translating_write_errors,
)
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.manifest import Manifest, RemoteFile
from deckard_deploy.weights.scales import ScaleRepair

_CHUNK = 8 << 20
_MARGIN_BYTES = 1 << 20  # for the manifest and folders
_LAST = "config.json"


class RepairedFolder(NamedTuple):
    """The content of the copy: each file by its name in the copy, and the changes to the scales.

    repo: names the content in the copy's manifest.
    """

    files: Mapping[str, Path]
    scales: tuple[ScaleRepair, ...]
    repo: str


def require_new(target: Path) -> None:
    """Raise BadInputError if the folder is there, or if there is no folder to create it in."""
    if target.exists() or target.is_symlink():
        raise BadInputError(f"{target} is there already, and only a new folder is written", hint="-o NEW")
    if not target.parent.is_dir():
        raise BadInputError(f"{target.parent} is not a folder", hint=f"mkdir -p {target.parent}")


def write(target: Path, content: RepairedFolder) -> Manifest:
    """Write the copy with its manifest, and return the manifest.

    Raises BadInputError if the target is there, EnvironmentUnfitError for a lack of disk space and for a file system
    that refuses. Nothing is there after an error.
    """
    require_new(target)
    _require_space(target, content.files.values())
    with translating_write_errors(target):
        clear_leftovers_of(target)
        hidden = Path(tempfile.mkdtemp(prefix=f"{temporary_prefix()}{target.name}-", dir=target.parent))
        try:
            hidden.chmod(0o755)  # the user of a container must read it
            manifest = _write_files(hidden, content)
            hidden.rename(target)  # fails if the target has got files meanwhile
        except BaseException:
            remove_folder(hidden)
            raise
        sync_folder(target.parent)
    return manifest


def _require_space(target: Path, files: Iterable[Path]) -> None:
    need = sum(path.stat().st_size for path in files) + _MARGIN_BYTES
    free = shutil.disk_usage(target.parent).free
    if need > free:
        raise EnvironmentUnfitError(
            f"{target.parent}: needs {need:,} bytes, and {free:,} are free",
            hint=f"free {need - free:,} bytes there",
        )


def _write_files(hidden: Path, content: RepairedFolder) -> Manifest:
    files = []
    for name in sorted(content.files, key=lambda name: (name == _LAST, name)):
        patches: dict[int, int] = {}
        for repair in content.scales:
            if repair.file == content.files[name]:
                patches |= repair.patches
        if name == _LAST:  # everything else is on the disk before the folder can be served
            sync_folder(hidden)
        files.append(_copy(content.files[name], hidden / name, patches))
    listing = "".join(f"{file.sha256} {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    # A folder has no commit. The hash of its list of files stands for it, so that two repairs can be told apart.
    commit = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()
    manifest = Manifest(repo=content.repo, commit=commit, files=tuple(files))
    model = ModelFolder(hidden)
    (hidden / ".deckard").mkdir()
    model.save_manifest(manifest)
    model.record_verified(manifest.files)
    sync_folder(hidden)
    return manifest


def _copy(source: Path, target: Path, patches: Mapping[int, int]) -> RemoteFile:
    """Copy a file with some bytes replaced. Return its entry of the manifest."""
    digest, size = hashlib.sha256(), 0
    left = sorted(patches)
    with source.open("rb") as read, target.open("xb") as written:
        while data := bytearray(read.read(_CHUNK)):
            while left and left[0] < size + len(data):
                place = left.pop(0)
                data[place - size] = patches[place]
            digest.update(data)
            written.write(data)
            size += len(data)
    target.chmod(0o644)
    sync_file(target)
    return RemoteFile(path=target.name, size=size, sha256=digest.hexdigest())
