"""Files that are on disk, whole, or absent: what weights and releases both stand on."""

import errno
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError

# What shows the cause of a refusal; of any other, rights are the likely one.
_LOOK = {
    errno.ENOSPC: "df -h {0}; df -i {0}",  # no bytes, or no inodes: the error is the same
    errno.EDQUOT: "quota -s",
    errno.EROFS: "findmnt -T {0}",
    errno.EIO: "dmesg | tail",
    errno.EFBIG: "ulimit -f",
    errno.EMFILE: "ulimit -n",
}


def next_look(error: OSError, folder: Path) -> str:
    """The command that shows why the file system of `folder` refused."""
    return _LOOK.get(error.errno or 0, "ls -ld {0}").format(folder)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into EnvironmentUnfitError, one line."""
    try:
        yield
    except OSError as error:
        raise EnvironmentUnfitError(
            f"cannot write {path}: {error.strerror}", hint=next_look(error, path.parent)
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Replace `path`; the last of several writers wins. Raises EnvironmentUnfitError, and `path` is then as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")  # another process may be writing the same file
    with writing(path):
        _clear_leftovers(path)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def _clear_leftovers(path: Path) -> None:
    """What writers left that were killed: it would pile up, in a user's repository too."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        pid = left.suffixes[-2].removeprefix(".")
        if pid.isdecimal() and not Path("/proc", pid).exists():
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on disk. Raises OSError."""
    _sync(folder, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Have the content on disk, whoever wrote it. Raises OSError."""
    _sync(path, os.O_NOFOLLOW)


def _sync(path: Path, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
