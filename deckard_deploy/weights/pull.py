"""Bring a repository's files to a folder: what is there is kept once its hash is right, the rest is fetched."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.system.files import sync_folder, writing
from deckard_deploy.weights import hub
from deckard_deploy.weights.folder import ModelFolder, Problem
from deckard_deploy.weights.manifest import Manifest, RemoteFile, bytes_of, hash_file
from deckard_deploy.weights.partial import Partial
from deckard_deploy.weights.transfer import Pace, Remote, Transfer

_MARGIN_BYTES = 1 << 20  # for journals and folders, beyond a hundredth of what is fetched
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Puller:
    """Who hears of a pull: `say` a line, `progress` bytes that are there and bytes in all."""

    say: Callable[[str], None]
    progress: Progress
    pace: Pace = field(default_factory=Pace)


def pull(manifest: Manifest, folder: Path, puller: Puller) -> int:
    """Have every needed file of `manifest` in `folder`, each with the right hash.

    Returns the size of the files that were not there; beginnings of them may have been.

    Raises DeploymentBusyError (another one pulls), EnvironmentUnfitError (disk), NetworkError, IntegrityError (the hub
    sends other bytes than it promised). What came before an error is kept, and is not fetched again.
    """
    model = ModelFolder(folder)
    is_complete = not model.changed(manifest.needed)  # guard: F13
    if is_complete and model.manifest() == manifest:
        return 0
    with model.held():
        model.keep(manifest)
        missing = _missing(model, manifest, puller)
        model.clear_parts(missing)
        _require_space(model, missing)
        there = bytes_of(manifest.needed) - bytes_of(missing)
        for file in missing:
            before = there

            def on_bytes(done: int, before: int = before) -> None:
                puller.progress(before + done, bytes_of(manifest.needed))

            _fetch(model, manifest, file, puller, on_bytes)
            there += file.size
        model.clear_parts()
    return bytes_of(missing)


def _missing(model: ModelFolder, manifest: Manifest, puller: Puller) -> list[RemoteFile]:
    """The files to fetch, after taking over what is in the folder or in the hub's cache. Wrong ones are quarantined."""
    outdated = model.outdated(manifest.needed)
    changed = [file for file in model.changed(manifest.needed) if file not in outdated]
    _materialize(model, changed)
    unsure = [file for file in changed if os.path.lexists(model.folder / file.path)]
    if unsure:
        puller.say(f"weights  hashing {len(unsure)} files that are in {model.folder}")
    wrong = {problem.path: problem for problem in model.check(unsure)}
    for problem in wrong.values():
        _set_aside(model, problem, puller.say)
    missing = [file for file in changed if not os.path.lexists(model.folder / file.path)]
    return outdated + [file for file in missing if not _adopted(model, manifest, file, puller.say)]


def _set_aside(model: ModelFolder, problem: Problem, say: Callable[[str], None]) -> None:
    aside = model.quarantine(problem.path)
    say(f"weights  {problem.path}: {problem.cause}; now {aside}, and fetched again")


def _materialize(model: ModelFolder, files: list[RemoteFile]) -> None:
    """Put what links point to in the links' places; a container sees the folder alone.

    No link goes before all are there: of a disk that fills up in between nothing could be taken over any more.
    """
    # Not Path.resolve, which raises RuntimeError for links in a circle before Python 3.13: here they lead to nothing.
    linked = [
        (file, Path(os.path.realpath(model.folder / file.path))) for file in files if model.link_to(file)
    ]
    staged: list[tuple[RemoteFile, Path]] = []
    try:
        for number, (file, target) in enumerate(linked):
            right = target.is_file() and target.stat().st_size == file.size
            if right and (copy := _stage(model, target, file, number)):
                staged.append((file, copy))
    except BaseException:
        for _, copy in staged:
            copy.unlink(missing_ok=True)
        raise
    for file, _ in linked:
        while link := model.link_to(file):
            with writing(link):
                link.unlink()
    for file, copy in staged:
        _place(model, copy, file)


def _adopted(model: ModelFolder, manifest: Manifest, file: RemoteFile, say: Callable[[str], None]) -> bool:
    """Whether the file was in huggingface_hub's cache, whole and right, and is here now."""
    cached = hub.cached_file(manifest, file)
    if cached is None or not cached.is_file() or cached.stat().st_size != file.size:
        return False
    if hash_file(cached, file) != file.digest:
        say(f"weights  {cached}: not what was published; left alone")
        return False
    if copy := _stage(model, cached, file):
        _place(model, copy, file)
        model.note([file])
        return True
    return False


def _stage(model: ModelFolder, source: Path, file: RemoteFile, number: int = 0) -> Path | None:
    """A file of somebody else under a name among parts: the same inode where that is possible, else a right copy.

    number: files may have the same content. Raises EnvironmentUnfitError, and leaves nothing that fills the disk.
    """
    copy = model.parts / f"{file.digest}.{number}.copy"
    with writing(copy):
        model.parts.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        try:
            os.link(source, copy)
        except OSError:  # another file system, or one without links
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
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        copy.replace(final)
        sync_folder(final.parent)


def bytes_to_come(manifest: Manifest, folder: Path) -> int:
    """Room that a pull would need, taking what lies there or in the hub's cache with the right size for right."""
    model = ModelFolder(folder)
    return _room(
        model, [file for file in model.changed(manifest.needed) if not _seems_here(model, manifest, file)]
    )


def _seems_here(model: ModelFolder, manifest: Manifest, file: RemoteFile) -> bool:
    places = (model.folder / file.path, hub.cached_file(manifest, file))
    return any(path.is_file() and path.stat().st_size == file.size for path in places if path)


def _room(model: ModelFolder, missing: list[RemoteFile]) -> int:
    need = sum(file.size - Partial.bytes_in(model.parts, file) for file in missing)
    return need + need // 100 + _MARGIN_BYTES if missing else 0


def _require_space(model: ModelFolder, missing: list[RemoteFile]) -> None:
    """Refuse before the first byte. Raises EnvironmentUnfitError."""
    need = _room(model, missing)
    have = shutil.disk_usage(model.folder).free
    if need > have:  # guard: F16
        raise EnvironmentUnfitError(
            f"{model.folder}: needs {need:,} bytes, and {have:,} are free",
            hint=f"free {need - have:,} bytes there",
        )


def _fetch(
    model: ModelFolder, manifest: Manifest, file: RemoteFile, puller: Puller, on_bytes: Callable[[int], None]
) -> None:
    """Fetch one file; if its hash is wrong, once more from the start. Raises what `pull` does."""
    partial = Partial(model.parts, file, segment_bytes=puller.pace.segment_bytes)
    remote = Remote(hub.file_url(manifest, file), hub.token(), file)
    try:
        for attempt in ("first", "last"):
            found = Transfer(remote, partial, puller.pace, say=puller.say).run(on_bytes)
            if found == file.digest:  # guard: F4
                partial.finish(model.folder / file.path)
                model.note([file])
                return
            partial.reset()
            if attempt == "first":
                puller.say(
                    f"weights  {file.path}: what came has hash {found[:12]}, not {file.digest[:12]}; once more"
                )
    finally:
        partial.close()
    raise IntegrityError(
        f"{file.path}: the hub sent other bytes than {manifest.repo} has at {manifest.commit[:12]}, twice",
        hint="unset HF_ENDPOINT, or ask who runs the mirror or the proxy",
    )
