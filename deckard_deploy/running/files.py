"""Files that are whole or absent: a kill at any instant leaves the old content or the new, at the final name.

What a kill can leave is a neighbour `.tmp-<pid>-<start time>-…`; `clear_leftovers` removes those on the next start,
but never one whose writer lives: a supervisor writes while a verb clears.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

from deckard_deploy.durable import sync_folder, writing
from deckard_deploy.errors import IntegrityError
from deckard_deploy.running.process_identity import ProcessIdentity, boot_id, identity_of, is_alive

_LEFTOVER = ".tmp-"
_WRITER = re.compile(r"\.tmp-(\d+)-(\d+)-")


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace `path`: temporary neighbour, fsync, rename, fsync of the folder.

    Raises EnvironmentUnfitError when the file system refuses; `path` is then as it was.
    """
    with writing(path):
        _replace(path, content.encode() if isinstance(content, str) else content, mode)


def _replace(path: Path, data: bytes, mode: int) -> None:
    descriptor, name = tempfile.mkstemp(prefix=temporary_prefix(), dir=path.parent)
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
    """Point the symbolic link `link` at `target`, relative to its folder, in one step. Raises EnvironmentUnfitError."""
    temporary = link.with_name(f"{temporary_prefix()}{link.name}")
    with writing(link):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
        sync_folder(link.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name. Raises EnvironmentUnfitError."""
    with writing(folder):
        if folder.name.startswith(_LEFTOVER):  # hidden already, and on a full disk nothing can be made
            _remove_tree(folder)
            return
        gone = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=folder.parent))
        folder.rename(gone / folder.name)
        _remove_tree(gone)


def clear_leftovers(folder: Path, *, below: bool = False) -> None:
    """Remove what killed writers left in `folder`, and in every folder below it if asked for."""
    pattern = f"{_LEFTOVER}*"
    for leftover in list(folder.rglob(pattern) if below else folder.glob(pattern)):
        if not _abandoned(leftover.name):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            _remove_tree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def temporary_prefix() -> str:
    """How the names of this process's unfinished files begin."""
    return f"{_LEFTOVER}{identity_of(os.getpid())}-"


def _abandoned(name: str) -> bool:
    writer = _WRITER.match(name)
    return writer is None or not is_alive(ProcessIdentity(int(writer[1]), int(writer[2]), boot_id()))


def _remove_tree(folder: Path) -> None:
    def unless_gone(_function: object, _path: str, error: tuple[type, BaseException, object]) -> None:
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    shutil.rmtree(folder, onerror=unless_gone)


def private_folder(folder: Path) -> Path:
    """Make a folder, and those above it, for its owner alone.

    Raises IntegrityError for a link or a file in its place, EnvironmentUnfitError when it cannot be made.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise IntegrityError(f"{folder} is not a folder of ours", hint=f"move it away: mv {folder} {folder}.old")
    with writing(folder):
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
        cause = error.strerror if isinstance(error, OSError) else error
        raise IntegrityError(f"{path} cannot be read: {cause}", hint=f"ls -l {path}") from error


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # not blocked by a FIFO either
