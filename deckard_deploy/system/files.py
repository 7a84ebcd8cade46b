"""Atomic writes: a kill at any instant leaves the old or the new content under the final name.

A killed writer can leave a temporary file `.tmp-<pid>-<start time>-…` in the same folder. The next write of
the same file removes it, and `clear_leftovers` removes those of a whole folder. Neither touches a temporary
file whose writer is alive, because a supervisor writes while a verb clears.
"""

import errno
import glob
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.system.processes import ProcessIdentity, boot_id, identity_of, is_alive

UMASK_MODE = 0o666
_LEFTOVER = ".tmp-"
_WRITER = re.compile(r"\.tmp-(\d+)-(\d+)-")
# The command that shows the cause of an error. For all other errors, access rights are the likely cause.
_DIAGNOSTICS = {
    errno.ENOSPC: "df -h {0}; df -i {0}",  # no bytes or no inodes cause the same error
    errno.EDQUOT: "quota -s",
    errno.EROFS: "findmnt -T {0}",
    errno.EIO: "dmesg | tail",
    errno.EFBIG: "ulimit -f",  # guard: F56
    errno.EMFILE: "ulimit -n",
}


def diagnostic_command(error: OSError, folder: Path) -> str:
    """Return the command that shows why the file system of `folder` refused."""
    return _DIAGNOSTICS.get(error.errno or 0, "ls -ld {0}").format(folder)


@contextmanager
def translating_write_errors(path: Path) -> Iterator[None]:
    """Turn a file system error into EnvironmentUnfitError."""
    try:
        yield
    except OSError as error:
        raise EnvironmentUnfitError(
            f"cannot write {path}: {error.strerror}", hint=diagnostic_command(error, path.parent)
        ) from error


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace `path`: temporary file, fsync, rename, fsync of the folder. The last of several writers wins.

    mode: exact permissions, independent of the umask; UMASK_MODE for a file that belongs to the user.
    Raises EnvironmentUnfitError if the file system refuses; `path` is then unchanged.
    """
    if isinstance(content, str):
        content = content.encode()
    with translating_write_errors(path):
        clear_leftovers_of(path)
        _replace(path, content, mode)


def try_write(path: Path, content: str | bytes) -> bool:
    """Replace `path` as write_atomically does. Return False if the file system refuses."""
    try:
        write_atomically(path, content)
    except EnvironmentUnfitError:
        return False
    return True


def _replace(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f"{temporary_prefix()}{path.name}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode != UMASK_MODE:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)  # guard: F41
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def link_atomically(link: Path, target: str) -> None:
    """Point the symbolic link `link` at `target`, relative to the link's folder, in one step.

    Raises EnvironmentUnfitError.
    """
    temporary = link.with_name(f"{temporary_prefix()}{link.name}")
    with translating_write_errors(link):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
        sync_folder(link.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder; a part of it never stands under its name. Raises EnvironmentUnfitError."""
    with translating_write_errors(folder):
        if folder.name.startswith(_LEFTOVER):  # already hidden; on a full disk no new folder can be created
            _remove_tree(folder)
            return
        hidden = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=folder.parent))
        folder.rename(hidden / folder.name)
        _remove_tree(hidden)


def clear_leftovers(folder: Path, *, below: bool = False) -> None:
    """Remove the leftovers of killed writers in `folder`. below: and in every folder below it."""
    pattern = f"{_LEFTOVER}*"
    leftovers = folder.rglob(pattern) if below else folder.glob(pattern)
    for leftover in list(leftovers):
        if _abandoned(leftover.name):
            _remove(leftover)


def clear_leftovers_of(path: Path) -> None:
    """Remove the leftovers of killed writers of one file, which would collect in a user's repository too."""
    for leftover in path.parent.glob(f"{_LEFTOVER}*-*-{glob.escape(path.name)}-*"):
        if _abandoned(leftover.name):
            _remove(leftover)


def temporary_prefix() -> str:
    """Return the prefix of the names of this process's temporary files."""
    return f"{_LEFTOVER}{identity_of(os.getpid())}-"


def _abandoned(name: str) -> bool:
    writer = _WRITER.match(name)
    return writer is None or not is_alive(ProcessIdentity(int(writer[1]), int(writer[2]), boot_id()))


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        _remove_tree(leftover)
    else:
        leftover.unlink(missing_ok=True)  # guard: F54


def _remove_tree(folder: Path) -> None:
    def ignore_missing(_function: object, _path: str, error: tuple[type, BaseException, object]) -> None:
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    shutil.rmtree(folder, onerror=ignore_missing)


def private_folder(folder: Path) -> Path:
    """Create a folder, and those above it, for its owner alone. Return the folder.

    Raises IntegrityError for a link or a file in its place, EnvironmentUnfitError if it cannot be created.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise IntegrityError(
            f"{folder} is not a folder of ours", hint=f"move it away: mv {folder} {folder}.old"
        )
    with translating_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def read_regular(path: Path) -> str:
    """Return the text of a regular file; never follow a link. Raises FileNotFoundError, IntegrityError."""
    try:
        with open(path, "rb", opener=_open_no_link) as file:  # Path.open takes no opener
            return file.read().decode()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:  # guard: F55
        cause = error.strerror if isinstance(error, OSError) else error
        raise IntegrityError(f"{path} cannot be read: {cause}", hint=f"ls -l {path}") from error


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # O_NONBLOCK: a FIFO must not block


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk. Raises OSError."""
    _sync(folder, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Write the file's content to the disk, also if another process wrote it. Raises OSError."""
    _sync(path, os.O_NOFOLLOW)


def _sync(path: Path, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
