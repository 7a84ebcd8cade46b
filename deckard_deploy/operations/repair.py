"""`repair`: a copy of a checkpoint with its NaN scales repaired, and with the files that it lacks."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.derived_models import REPOSITORY, refuse_odd_files
from deckard_deploy.operations.inspect import checkpoint_folder
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.layout import state_directory
from deckard_deploy.system.text import escaped
from deckard_deploy.weights import hub, repaired_folder
from deckard_deploy.weights.chat_template import chat_template
from deckard_deploy.weights.checkpoint import Checkpoint, read_checkpoint, refuse_code_requests
from deckard_deploy.weights.inspection import file_faults
from deckard_deploy.weights.manifest import total_bytes
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.repaired_folder import RepairedFolder
from deckard_deploy.weights.scales import ScaleRepair, require_repairs
from deckard_deploy.weights.strict_json import read_object

# What a checkpoint of a chat model has next to its weights; an export of ModelOpt has none of them.
_FROM_BASE = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_COMMIT = re.compile("[0-9a-f]{40}")


class RepairedTensor(NamedTuple):
    """The NaN scales of one tensor: how many became 448, and how many 0."""

    tensor: str
    file: str
    largest: int
    zero: int


class Repair(NamedTuple):
    """What `repair` did, or with a dry run would do.

    written: the new folder; None if there is nothing to repair, or with a dry run. added: the files of the base
    repository. base: that repository at its commit; None without one. left: folders that are not copied.
    """

    source: str
    written: str | None
    scales: tuple[RepairedTensor, ...]
    added: tuple[str, ...]
    base: str | None
    left: tuple[str, ...]


def repair_checkpoint(  # noqa: PLR0913  one parameter per option
    named: str,
    target: Path,
    base: str | None,
    state_dir: Path | None,
    report: Reporter,
    *,
    dry_run: bool = False,
) -> Repair:
    """Write a repaired copy of a checkpoint into a new folder. named: a folder, or the name of a model.

    base: OWNER/NAME@COMMIT with the files that are missing. Raises BadInputError, IntegrityError for a checkpoint that
    no rule restores, EnvironmentUnfitError, NetworkError; nothing is written then.
    """
    folder = checkpoint_folder(named, state_directory(state_dir))
    repaired_folder.require_new(target)
    if folder.is_dir():
        refuse_odd_files(folder)
    if target.resolve().is_relative_to(folder.resolve()):
        raise BadInputError(f"{target} is inside of {folder}, which is never written to", hint="-o NEW")
    found = read_checkpoint(folder)
    scales = require_repairs(found, before=f"{found.folder}: ", hint="export the checkpoint again")
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    with tempfile.TemporaryDirectory() as scratch:
        fetched = _base_files(found, base, Path(scratch), report)
        files |= fetched
        _require_complete(found, files, Path(scratch) / "complete", base)
        done = Repair(
            source=str(folder),
            written=str(target) if (scales or fetched) and not dry_run else None,
            scales=tuple(_count(scale) for scale in scales),
            added=tuple(sorted(fetched)),
            base=base,
            left=tuple(
                sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
            ),
        )
        if done.written:
            content = RepairedFolder(files, scales, f"repair of {folder.resolve()}")
            repaired_folder.write(target, content)
    return done


def _count(scale: ScaleRepair) -> RepairedTensor:
    return RepairedTensor(scale.tensor, scale.file.name, len(scale.patches) - scale.zeroed, scale.zeroed)


def _base_files(found: Checkpoint, base: str | None, scratch: Path, report: Reporter) -> dict[str, Path]:
    """Fetch the files that the checkpoint lacks and the base repository has. Return them by name."""
    if base is None:
        return {}
    repo, _, commit = base.partition("@")
    if not REPOSITORY.fullmatch(base) or not _COMMIT.fullmatch(commit):
        raise BadInputError(
            f"--from {base[:120]!r} is no repository at a commit of 40 hex digits",
            hint="--from OWNER/NAME@COMMIT",
        )
    manifest = hub.connect().resolve(repo, commit)
    present = found.other_files
    wanted = [name for name in _FROM_BASE if name not in present]
    if chat_template(found.folder) is not None:
        wanted = [name for name in wanted if name not in _TEMPLATES]
    files = tuple(file for file in manifest.files if file.path in wanted)
    if not files:
        return {}
    config = tuple(file for file in manifest.files if file.path == "config.json")
    report.say(f"weights  {len(files)} files of {repo} at {commit[:12]}, {total_bytes(files):,} bytes")
    pull(
        manifest.model_copy(update={"files": (*files, *config)}),
        scratch,
        PullReporter(report.say, lambda *_: None),
    )
    _require_same_vocabulary(found, scratch, base)
    refuse_code_requests(scratch)
    return {file.path: scratch / file.path for file in files}


def _require_same_vocabulary(found: Checkpoint, base: Path, named: str) -> None:
    """Raise IntegrityError for a base with another vocabulary: its tokenizer would give other ids."""
    config = read_object(base / "config.json")
    text = config.get("text_config", config)
    theirs = text.get("vocab_size") if isinstance(text, dict) else None
    ours = found.text_config.get("vocab_size")
    if ours != theirs:
        raise IntegrityError(
            f"{named} has a vocabulary of {escaped(str(theirs)[:40])} tokens, and {found.folder} one of "
            f"{escaped(str(ours)[:40])}",
            hint="--from the repository that the checkpoint was made of",
        )


def _require_complete(found: Checkpoint, files: Mapping[str, Path], view: Path, base: str | None) -> None:
    """Raise IntegrityError if the copy would still lack a file that the model cannot be served without.

    view: becomes a folder of links to the files of the copy.
    """
    view.mkdir()
    for name, path in files.items():
        (view / name).symlink_to(path.resolve())
    for fault in file_faults(replace(found, folder=view)):
        if base is None:
            raise IntegrityError(
                f"{found.folder}: {fault}",
                hint="--from OWNER/NAME@COMMIT, the repository that the checkpoint was made of",
            )
        raise IntegrityError(f"{found.folder}: {fault}; {base} has none either", hint="another --from")
