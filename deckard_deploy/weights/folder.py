"""The folder of one model: its verified files, and their comparison with the manifest.

<folder>/<files>            a file gets its name from the manifest only after its hash was verified
<folder>/.deckard/
  manifest.json             the files of the repository at the resolved commit
  record.json               per file: hash, and the size, times and inode at the moment of hashing
  parts/                    unfinished files (partial.py)
  quarantine/               files that did not match the manifest
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field, ValidationError

from deckard_deploy.errors import DeploymentBusyError
from deckard_deploy.system.files import UMASK_MODE, sync_file, translating_write_errors, write_atomically
from deckard_deploy.system.text import escaped
from deckard_deploy.weights.manifest import Manifest, RemoteFile, StrictModel, hash_file, read_manifest
from deckard_deploy.weights.strict_json import detect_wrong_content, require_regular

PRIVATE_FOLDER = ".deckard"
# Only these are removed from parts/: anything else belongs to the user, and may be a link to another disk.
_UNFINISHED = (".part", ".journal", ".copy")
_MARKER_TIMEOUT_S = 0.2  # long enough to take over the marker of a dead process
_LOADABLE = (".safetensors", ".bin", ".pt", ".py")  # an engine may load any such file in the folder


class FileFingerprint(StrictModel):
    """The metadata of a file at the moment of hashing. An unchanged fingerprint means unchanged content."""

    digest: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class _Record(StrictModel):
    files: dict[str, FileFingerprint] = Field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A file that does not match the manifest; `cause` in a few words."""

    path: str
    cause: str


class ModelFolder:
    """The folder of one model. It is created by the first operation that writes."""

    def __init__(self, folder: Path) -> None:
        """Store the paths; nothing is read yet."""
        self.folder = folder
        self.parts = folder / PRIVATE_FOLDER / "parts"
        self._quarantine = folder / PRIVATE_FOLDER / "quarantine"
        self._record_path = folder / PRIVATE_FOLDER / "record.json"
        self._manifest_path = folder / PRIVATE_FOLDER / "manifest.json"

    def manifest(self) -> Manifest | None:
        """Return the manifest of the last pull; None if there is none or it is damaged."""
        return read_manifest(self._manifest_path)

    def save_manifest(self, manifest: Manifest) -> None:
        """Save the manifest that this folder must match. Raises EnvironmentUnfitError."""
        write_atomically(
            self._manifest_path, manifest.model_dump_json(indent=1, exclude_none=True) + "\n", mode=UMASK_MODE
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder's lock. Raises DeploymentBusyError without waiting, and EnvironmentUnfitError."""
        from filelock import FileLock, SoftFileLock, Timeout  # noqa: PLC0415  only a pull needs it

        with translating_write_errors(self.folder):
            (self.folder / PRIVATE_FOLDER).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / PRIVATE_FOLDER / "lock", timeout=0)
        # On a network file system flock may work on one host only, or always succeed. The second lock
        # therefore is a file that only one process can create, with the pid, start time and host of its
        # owner. The file of a dead process is taken over.
        marker = SoftFileLock(
            self.folder / PRIVATE_FOLDER / "owner",
            timeout=_MARKER_TIMEOUT_S,
            poll_interval=_MARKER_TIMEOUT_S / 4,
        )
        try:  # guard: F19
            lock.acquire()
            marker.acquire()  # guard: F20
        except Timeout:
            lock.release()
            raise DeploymentBusyError(
                f"another deckard-deploy is pulling into {self.folder}",
                hint=f"wait until it is done. If it ran on a host that is gone: rm {marker.lock_file}",
            ) from None
        try:
            yield
        finally:
            marker.release()
            lock.release()

    def changed(self, files: Iterable[RemoteFile]) -> list[RemoteFile]:
        """Return the files whose fingerprint is not the recorded one. No content is read."""
        record = self._record()
        return [file for file in files if not self._is_unchanged(file, record.get(file.path))]

    def _is_unchanged(self, file: RemoteFile, seen: FileFingerprint | None) -> bool:
        if seen is None or seen.size != file.size:
            return False
        return seen == self._look(file)  # guard: F49

    def outdated(self, files: Iterable[RemoteFile]) -> list[RemoteFile]:
        """Return the intact files of another commit: they are to be replaced, not quarantined."""
        record = self._record()
        found = []
        for file in files:
            seen = record.get(file.path)
            if seen is None or seen.digest == file.digest:
                continue
            # A sha256 takes precedence in `digest`, so this is the same file with the recorded digest.
            recorded = file.model_copy(update={"sha256": seen.digest})
            if seen == self._look(recorded):
                found.append(file)
        return found

    def _look(self, file: RemoteFile) -> FileFingerprint | None:
        """Return the current fingerprint, with the expected digest; None if it is not a regular file."""
        try:
            found = (self.folder / file.path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode) or self.link_to(file):
            return None
        return FileFingerprint(
            digest=file.digest,
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,  # guard: F5
            inode=found.st_ino,
        )

    def link_to(self, file: RemoteFile) -> Path | None:
        """Return the first symbolic link on the path of the file, the file included; None if there is none.

        A container mounts only this folder, so it cannot follow links.
        """
        relative = PurePosixPath(file.path)
        for step in (*reversed(relative.parents[:-1]), relative):  # the last parent is "."
            path = self.folder / step
            if path.is_symlink():
                return path
        return None

    def _record(self) -> dict[str, FileFingerprint]:
        try:
            require_regular(self._record_path)
            return _Record.model_validate_json(self._record_path.read_bytes()).files
        except (FileNotFoundError, ValidationError):
            return {}  # so every file is hashed again

    def record_verified(self, files: Iterable[RemoteFile]) -> None:
        """Record the fingerprints of files that were just verified. Raises EnvironmentUnfitError."""
        self._update(files, wrong=())

    def _update(self, right: Iterable[RemoteFile], wrong: Iterable[RemoteFile]) -> None:
        """Add the right files to the record, and remove the wrong ones.

        The fingerprint of a wrong file would pass as verified.
        An entry with another digest stays: it marks the file as one of another commit.
        """
        before = self._record()
        after = dict(before)
        for file in wrong:
            seen = before.get(file.path)
            if seen is not None and seen.digest == file.digest:
                after.pop(file.path, None)
        for file in right:
            look = self._look(file)
            if look is not None:
                after[file.path] = look
        if after != before:
            self._write_record(before, after)

    def _write_record(self, before: dict[str, FileFingerprint], after: dict[str, FileFingerprint]) -> None:
        for path, seen in after.items():
            if seen != before.get(path):
                # Without this, a power loss could leave the right fingerprint and lose the content.
                with translating_write_errors(self.folder / path):
                    sync_file(self.folder / path)
        with translating_write_errors(self._record_path):
            (self.folder / PRIVATE_FOLDER).mkdir(
                exist_ok=True
            )  # missing if `verify` comes before the first pull
        content = _Record(files=after).model_dump_json(indent=1) + "\n"
        write_atomically(self._record_path, content, mode=UMASK_MODE)

    def check(
        self,
        files: list[RemoteFile],
        on_bytes: Callable[[int], None] = lambda _: None,
        *,
        record: bool = True,
    ) -> list[Problem]:
        """Hash the files on all cores, update the record, and return the problems, sorted by path.

        on_bytes: called with the number of bytes that were checked so far. record: False for a folder of the user's
        own, which is not written to.
        """
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  `verify --fast` hashes nothing

        before = {file.path: self._look(file) for file in files}
        done = 0
        problems: list[Problem] = []
        right: list[RemoteFile] = []
        wrong: list[RemoteFile] = []
        largest_first = sorted(files, key=lambda file: -file.size)
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            for file, cause in zip(largest_first, pool.map(self._cause, largest_first), strict=True):
                done += file.size
                on_bytes(done)
                if cause:
                    problems.append(Problem(file.path, cause))
                    wrong.append(file)
                elif before[file.path] == self._look(file):  # not changed during the hashing
                    right.append(file)
        if record:
            self._update(right, wrong)
        return sorted(problems, key=lambda problem: problem.path)

    def _cause(self, file: RemoteFile) -> str:
        """Return the fault of a file in a few words, "" if it has none."""
        path = self.folder / file.path
        try:
            return self._mismatch(path, file)
        except FileNotFoundError:
            if path.is_symlink():
                return "a link to nothing"
            return "missing"
        except OSError as error:
            return error.strerror or "cannot be read"

    def _mismatch(self, path: Path, file: RemoteFile) -> str:
        """Return the difference between the file at `path` and `file`, "" if there is none. Raises OSError."""
        size = path.stat().st_size
        link = self.link_to(file)
        if link is not None:
            return f"a link to {escaped(str(link.readlink()))}, which a container does not see"
        if not path.is_file():
            return "not a regular file"
        if size != file.size:
            with path.open("rb") as opened:
                wrong_content = detect_wrong_content(opened.read(64))
            return wrong_content or f"{size} bytes, and {file.size} were expected"
        if hash_file(path, file) != file.digest:
            return "its content is not what was published"
        return ""

    def unexpected(self, manifest: Manifest) -> list[str]:
        """Return the sorted names of files that an engine might load and that are not in the manifest."""
        known = {file.path for file in manifest.needed}
        found = []
        for path in self.folder.glob("*"):
            if path.suffix in _LOADABLE and path.name not in known:
                found.append(path.name)
        return sorted(found)

    def quarantine(self, path: str) -> Path:
        """Move a file to the quarantine folder and return its new path. Raises EnvironmentUnfitError."""
        target = self._quarantine / path
        source = self.folder / path
        while target.is_dir() or (target.exists() and source.is_dir()):  # a rename cannot replace these
            target = target.with_name(f"{target.name}~")
        with translating_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        return target

    def clear_parts(self, wanted: Iterable[RemoteFile] = ()) -> None:
        """Remove the leftovers of earlier pulls, except the unfinished files of `wanted`."""
        kept = {file.digest for file in wanted}
        if self.parts.is_dir():
            with translating_write_errors(self.parts):
                for path in self.parts.iterdir():
                    if path.suffix in _UNFINISHED and path.stem not in kept:
                        path.unlink()
                if not self.parts.is_symlink() and not any(self.parts.iterdir()):
                    self.parts.rmdir()
