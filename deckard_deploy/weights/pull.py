"""Pull the files of a repository into a folder: verify and keep the present ones, fetch the others."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.system.files import sync_folder, translating_write_errors
from deckard_deploy.weights import hub
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.manifest import Manifest, RemoteFile, hash_file, total_bytes
from deckard_deploy.weights.partial import Partial
from deckard_deploy.weights.transfer import Remote, Transfer, TransferSettings

_MARGIN_BYTES = 1 << 20  # for journals and folders, in addition to a hundredth of the bytes to fetch
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PullReporter:
    """The callbacks of a pull: `say` takes a line, `progress` the present and the total number of bytes."""

    say: Callable[[str], None]
    progress: Progress
    settings: TransferSettings = field(default_factory=TransferSettings)


def pull(manifest: Manifest, folder: Path, puller: PullReporter) -> int:
    """Ensure that `folder` has every needed file of `manifest` with the right hash.

    Returns the total size in bytes of the files that were missing, whether or not a part of them was present.

    Raises DeploymentBusyError (another process pulls), EnvironmentUnfitError (disk), NetworkError,
    IntegrityError (the content does not match the manifest). The bytes that arrived before an error are kept
    and not fetched again.
    """
    model = ModelFolder(folder)
    is_complete = not model.changed(manifest.needed)  # guard: F13
    if is_complete and model.manifest() == manifest:
        return 0
    with model.lock():
        model.save_manifest(manifest)
        missing = _files_to_fetch(model, manifest, puller)
        model.clear_parts(missing)
        _require_space(model, missing)
        total = total_bytes(manifest.needed)
        present = total - total_bytes(missing)
        for file in missing:

            def on_bytes(done: int, before: int = present) -> None:
                puller.progress(before + done, total)

            _fetch(model, manifest, file, puller, on_bytes)
            present += file.size
        model.clear_parts()
    return total_bytes(missing)


def _files_to_fetch(model: ModelFolder, manifest: Manifest, puller: PullReporter) -> list[RemoteFile]:
    """Return the files to fetch. Wrong files are quarantined, right ones in the hub's cache adopted."""
    outdated = model.outdated(manifest.needed)
    changed = [file for file in model.changed(manifest.needed) if file not in outdated]
    _replace_links(model, changed)
    unverified = [file for file in changed if os.path.lexists(model.folder / file.path)]
    if unverified:
        puller.say(f"weights  hashing {len(unverified)} files that are in {model.folder}")
    for problem in model.check(unverified):
        moved_to = model.quarantine(problem.path)
        puller.say(f"weights  {problem.path}: {problem.cause}; now {moved_to}, and fetched again")
    to_fetch = list(outdated)
    for file in changed:
        present = os.path.lexists(model.folder / file.path)
        if not present and not _adopt_cached(model, manifest, file, puller.say):
            to_fetch.append(file)
    return to_fetch


def _replace_links(model: ModelFolder, files: list[RemoteFile]) -> None:
    """Replace symbolic links by their targets, because a container mounts only this folder.

    All targets are staged before the first link is removed: if the disk fills up in between, no file is lost.
    """
    linked: list[RemoteFile] = []
    staged: list[tuple[RemoteFile, Path]] = []
    try:
        for file in files:
            if not model.link_to(file):
                continue
            # Not Path.resolve: before Python 3.13 it raises RuntimeError for links in a circle.
            target = Path(os.path.realpath(model.folder / file.path))
            number = len(linked)
            linked.append(file)
            if not target.is_file() or target.stat().st_size != file.size:
                continue
            copy = _stage(model, target, file, number)
            if copy is not None:
                staged.append((file, copy))
    except BaseException:
        for _, copy in staged:
            copy.unlink(missing_ok=True)
        raise
    for file in linked:
        _remove_links(model, file)
    for file, copy in staged:
        _place(model, copy, file)


def _remove_links(model: ModelFolder, file: RemoteFile) -> None:
    link = model.link_to(file)
    while link is not None:
        with translating_write_errors(link):
            link.unlink()
        link = model.link_to(file)


def _adopt_cached(
    model: ModelFolder, manifest: Manifest, file: RemoteFile, say: Callable[[str], None]
) -> bool:
    """Take a file over from huggingface_hub's cache. Return False if it is not there or its hash is wrong."""
    cached = hub.connect().cached_file(manifest, file)
    if cached is None or not cached.is_file() or cached.stat().st_size != file.size:
        return False
    if hash_file(cached, file) != file.digest:
        say(f"weights  {cached}: not what was published; left alone")
        return False
    copy = _stage(model, cached, file)
    if copy is None:
        return False
    _place(model, copy, file)
    model.record_verified([file])
    return True


def _stage(model: ModelFolder, source: Path, file: RemoteFile, number: int = 0) -> Path | None:
    """Link or copy a file into parts/ and return the new path; None if the copy has the wrong hash.

    number: tells files of the same content apart. Raises EnvironmentUnfitError, and then leaves no copy
    behind.
    """
    copy = model.parts / f"{file.digest}.{number}.copy"
    with translating_write_errors(copy):
        model.parts.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        try:
            os.link(source, copy)
        except OSError:  # another file system, or one without hard links
            try:
                shutil.copyfile(source, copy)
                right = hash_file(copy, file) == file.digest
            except BaseException:
                copy.unlink(missing_ok=True)
                raise
            if not right:
                copy.unlink()
                return None
    return copy


def _place(model: ModelFolder, copy: Path, file: RemoteFile) -> None:
    final = model.folder / file.path
    with translating_write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        copy.replace(final)
        sync_folder(final.parent)


def bytes_to_download(manifest: Manifest, folder: Path) -> int:
    """Return the disk space in bytes that a pull would need.

    A file of the right size in the folder or in the hub's cache counts as present.
    """
    model = ModelFolder(folder)
    missing = []
    for file in model.changed(manifest.needed):
        cached = hub.connect().cached_file(manifest, file)
        if not _has_right_size(model.folder / file.path, file) and not _has_right_size(cached, file):
            missing.append(file)
    return _required_space(model, missing)


def _has_right_size(path: Path | None, file: RemoteFile) -> bool:
    return path is not None and path.is_file() and path.stat().st_size == file.size


def _required_space(model: ModelFolder, missing: list[RemoteFile]) -> int:
    if not missing:
        return 0
    need = sum(file.size - Partial.bytes_in(model.parts, file) for file in missing)
    return need + need // 100 + _MARGIN_BYTES


def _require_space(model: ModelFolder, missing: list[RemoteFile]) -> None:
    """Raise EnvironmentUnfitError if the disk has too little space for the missing files."""
    need = _required_space(model, missing)
    have = shutil.disk_usage(model.folder).free
    if need > have:  # guard: F16
        raise EnvironmentUnfitError(
            f"{model.folder}: needs {need:,} bytes, and {have:,} are free",
            hint=f"free {need - have:,} bytes there",
        )


def _fetch(
    model: ModelFolder,
    manifest: Manifest,
    file: RemoteFile,
    puller: PullReporter,
    on_bytes: Callable[[int], None],
) -> None:
    """Fetch one file; if its hash is wrong, once more from the start. Raises as `pull` does."""
    partial = Partial(model.parts, file, segment_bytes=puller.settings.segment_bytes)
    client = hub.connect()
    remote = Remote(client.file_url(manifest, file), client.token(), file)
    try:
        for attempt in ("first", "last"):
            found = Transfer(remote, partial, puller.settings, say=puller.say).run(on_bytes)
            if found == file.digest:  # guard: F4
                partial.finish(model.folder / file.path)
                model.record_verified([file])
                return
            partial.reset()
            if attempt == "first":
                hashes = f"{found[:12]}, not {file.digest[:12]}"
                puller.say(f"weights  {file.path}: what came has hash {hashes}; once more")
    finally:
        partial.close()
    raise IntegrityError(
        f"{file.path}: the hub sent other bytes than {manifest.repo} has at {manifest.commit[:12]}, twice",
        hint="unset HF_ENDPOINT, or ask who runs the mirror or the proxy",
    )
