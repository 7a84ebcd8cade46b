"""Files that are whole or absent: a kill at any instant leaves the old content or the new, at the final name.

What a kill can leave is a `.tmp-…` neighbour; `clear_leftovers` removes those on the next start.
"""

import os
import shutil
import tempfile
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError

LEFTOVER = ".tmp-"
_REMOVED = ".tmp-gone-"


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace `path`: temporary neighbour, fsync, rename, fsync of the folder.

    Raises EnvironmentUnfitError when the file system refuses; `path` is then as it was.
    """
    try:
        _replace(path, content.encode() if isinstance(content, str) else content, mode)
    except OSError as error:
        raise EnvironmentUnfitError(f"cannot write {path}: {error.strerror}", hint=f"df -h {path.parent}") from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    descriptor, name = tempfile.mkstemp(prefix=LEFTOVER, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def link_atomically(link: Path, target: str) -> None:
    """Point the symbolic link `link` at `target`, relative to its folder, in one step. Raises OSError."""
    temporary = link.with_name(f"{LEFTOVER}{os.getpid()}-{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_folder(link.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name. Raises OSError."""
    gone = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=folder.parent))
    folder.rename(gone / folder.name)
    _remove_tree(gone)


def clear_removed(folder: Path) -> None:
    """Finish what a killed `remove_folder` began here; another process may be doing the same."""
    for removed in folder.glob(f"{_REMOVED}*"):
        _remove_tree(removed)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left in `folder` and below; the caller holds the lock of whatever lives there."""
    for leftover in list(folder.rglob(f"{LEFTOVER}*")):
        if leftover.is_dir() and not leftover.is_symlink():
            _remove_tree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _remove_tree(folder: Path) -> None:
    def unless_gone(_function: object, _path: str, error: tuple[type, BaseException, object]) -> None:
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    shutil.rmtree(folder, onerror=unless_gone)


def private_folder(folder: Path) -> Path:
    """Make a folder, and those above it, for its owner alone. Raises IntegrityError for a link in its place."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise IntegrityError(f"{folder} is not a folder of ours", hint=f"move it away: mv {folder} {folder}.old")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def read_regular(path: Path) -> str:
    """The text of a regular file, never through a link. Raises FileNotFoundError, IntegrityError."""
    try:
        with open(path, "rb", opener=_open_no_link) as file:  # Path.open takes no opener
            return file.read().decode()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path} cannot be read: {error}", hint=f"ls -l {path}") from error


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # not blocked by a FIFO either


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
