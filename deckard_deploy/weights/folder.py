"""A model's folder: what is known of the files in it, and which of them are what the manifest says.

<folder>/<files>            a name in the manifest is given only to a file whose hash was right
<folder>/.deckard/
  manifest.json             the repository at a commit, as it was resolved
  record.json               per file: hash, and size, times and inode at the moment it was hashed
  parts/                    files on their way (partial.py)
  quarantine/               files that were not what the manifest says
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field, ValidationError

from deckard_deploy.errors import DeploymentBusyError
from deckard_deploy.system.files import UMASK_MODE, sync_file, write_atomically, writing
from deckard_deploy.weights.manifest import Entry, Manifest, RemoteFile, hash_file, read_manifest
from deckard_deploy.weights.strict_json import impostor, printable, require_regular

OURS = ".deckard"
# Anything else in parts/ is somebody's: it may be a link to their disk.
_UNFINISHED = (".part", ".journal", ".copy")
_MARKER_S = 0.2  # long enough to take over a dead owner's marker
_LOADED = (".safetensors", ".bin", ".pt", ".py")  # an engine that finds one of these may take it


class Seen(Entry):
    """A file at the moment it was hashed: as long as this stays the same, so does the content."""

    digest: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class _Record(Entry):
    files: dict[str, Seen] = Field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A file that is not what the manifest says, in a few words."""

    path: str
    cause: str


class ModelFolder:
    """The folder of one model; nothing is made before it has to be."""

    def __init__(self, folder: Path) -> None:
        """Reads nothing yet."""
        self.folder = folder
        self.parts = folder / OURS / "parts"
        self._quarantine = folder / OURS / "quarantine"
        self._record_path = folder / OURS / "record.json"
        self._manifest_path = folder / OURS / "manifest.json"

    def manifest(self) -> Manifest | None:
        """What was pulled here last."""
        return read_manifest(self._manifest_path)

    def keep(self, manifest: Manifest) -> None:
        """Store what this folder is held to. Raises EnvironmentUnfitError."""
        write_atomically(
            self._manifest_path, manifest.model_dump_json(indent=1, exclude_none=True) + "\n", mode=UMASK_MODE
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """One puller at a time. Raises DeploymentBusyError, at once; EnvironmentUnfitError."""
        from filelock import FileLock, SoftFileLock, Timeout  # noqa: PLC0415  not to look at what is there

        with writing(self.folder):
            (self.folder / OURS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / OURS / "lock", timeout=0)
        # On a network file system flock may hold on one host alone, or say yes to everybody. The second lock is a file
        # that only one can create, with the owner's pid, start time and host in it; a dead owner's is taken over.
        marker = SoftFileLock(self.folder / OURS / "owner", timeout=_MARKER_S, poll_interval=_MARKER_S / 4)
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
        """Those that are not there as they were when their hash was right. No content is read."""
        record = self._record()
        return [file for file in files if not self._is_unchanged(file, record.get(file.path))]

    def _is_unchanged(self, file: RemoteFile, seen: Seen | None) -> bool:
        if seen is None or seen.size != file.size:
            return False
        return seen == self._look(file)  # guard: F49

    def outdated(self, files: Iterable[RemoteFile]) -> list[RemoteFile]:
        """Those that are there as another commit had them: whole, and to be replaced."""
        record = self._record()
        return [
            file
            for file in files
            if (seen := record.get(file.path))
            and seen.digest != file.digest
            and seen == self._look(file.model_copy(update={"sha256": seen.digest}))
        ]

    def _look(self, file: RemoteFile) -> Seen | None:
        """The file as it is now, taken to have the right content; None when it is no regular file."""
        try:
            found = (self.folder / file.path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode) or self.link_to(file):
            return None
        return Seen(
            digest=file.digest,
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,  # guard: F5
            inode=found.st_ino,
        )

    def link_to(self, file: RemoteFile) -> Path | None:
        """The link that is the file, or a folder on its way: a container sees this folder alone."""
        way = PurePosixPath(file.path)
        steps = (self.folder / step for step in (*reversed(way.parents[:-1]), way))  # the last parent is "."
        return next((step for step in steps if step.is_symlink()), None)

    def _record(self) -> dict[str, Seen]:
        try:
            require_regular(self._record_path)
            return _Record.model_validate_json(self._record_path.read_bytes()).files
        except (FileNotFoundError, ValidationError):
            return {}  # everything is hashed again

    def note(self, files: Iterable[RemoteFile]) -> None:
        """Their hash was right a moment ago: remember how they look. Raises EnvironmentUnfitError."""
        self._update(files, wrong=())

    def _update(self, right: Iterable[RemoteFile], wrong: Iterable[RemoteFile]) -> None:
        """What the record says of a wrong file goes, or its looks would pass for the right content.

        A record of another digest stays: it tells that the file is another commit's.
        """
        before = self._record()
        disproved = {
            file.path for file in wrong if (seen := before.get(file.path)) and seen.digest == file.digest
        }
        kept = {path: seen for path, seen in before.items() if path not in disproved}
        after = kept | {file.path: look for file in right if (look := self._look(file))}
        if after != before:
            for path in (path for path, seen in after.items() if seen != before.get(path)):
                # After a power loss its looks might be right, and its content gone.
                with writing(self.folder / path):
                    sync_file(self.folder / path)
            with writing(self._record_path):
                # Not there where nothing was pulled: `verify` may come first.
                (self.folder / OURS).mkdir(exist_ok=True)
            write_atomically(
                self._record_path, _Record(files=after).model_dump_json(indent=1) + "\n", mode=UMASK_MODE
            )

    def check(
        self, files: list[RemoteFile], on_bytes: Callable[[int], None] = lambda _: None
    ) -> list[Problem]:
        """Hash files, on all cores, and say what is wrong; right ones are remembered, wrong ones forgotten."""
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
                elif before[file.path] == self._look(file):  # not changed while it was hashed
                    right.append(file)
        self._update(right, wrong)
        return sorted(problems, key=lambda problem: problem.path)

    def _cause(self, file: RemoteFile) -> str:
        """What is wrong with a file, "" for nothing."""
        path = self.folder / file.path
        try:
            size = path.stat().st_size
            if link := self.link_to(file):
                return f"a link to {printable(str(link.readlink()))}, which a container does not see"
            if not path.is_file():
                return "not a regular file"
            if size != file.size:
                with path.open("rb") as opened:
                    known = impostor(opened.read(64))
                return known or f"{size} bytes, and {file.size} were expected"
            return "" if hash_file(path, file) == file.digest else "its content is not what was published"
        except FileNotFoundError:
            return "a link to nothing" if path.is_symlink() else "missing"
        except OSError as error:
            return error.strerror or "cannot be read"

    def unexpected(self, manifest: Manifest) -> list[str]:
        """Names of files that an engine might load, and that the manifest does not have."""
        known = {file.path for file in manifest.needed}
        return sorted(
            path.name for path in self.folder.glob("*") if path.suffix in _LOADED and path.name not in known
        )

    def quarantine(self, path: str) -> Path:
        """Take a file's name away from it; returns where it is now. Raises EnvironmentUnfitError."""
        target = self._quarantine / path
        source = self.folder / path
        while target.is_dir() or (target.exists() and source.is_dir()):  # these do not replace each other
            target = target.with_name(f"{target.name}~")
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        return target

    def clear_parts(self, wanted: Iterable[RemoteFile] = ()) -> None:
        """Remove what earlier pulls left behind, but for the beginnings of files that are still wanted."""
        kept = {file.digest for file in wanted}
        if self.parts.is_dir():
            with writing(self.parts):
                for path in self.parts.iterdir():
                    if path.suffix in _UNFINISHED and path.stem not in kept:
                        path.unlink()
                if not self.parts.is_symlink() and not any(self.parts.iterdir()):
                    self.parts.rmdir()
