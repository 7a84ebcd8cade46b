"""`render all` and `render --check`: a folder that a machine without this tool runs."""

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from deckard_deploy import __version__
from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.choice import DEFAULT_FILE, resolve_choice
from deckard_deploy.operations.locked import apply_lock, require_locked
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.patch_check import base_files
from deckard_deploy.operations.patch_files import patches_of
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.operations.release import content_hashes
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.patching import build, plugin, request_filter
from deckard_deploy.planning.plan import LaunchPlan, plan_hash
from deckard_deploy.planning.planner import build_plan, patch_folder
from deckard_deploy.rendering import folder as rendering
from deckard_deploy.system.files import UMASK_MODE, read_regular, write_atomically

RECORD = "deckard.json"
# Files of one machine: rendered once, then left to prepare.sh and to people.
_OF_MACHINE = frozenset({rendering.ENVIRONMENT})


class FolderRecord(BaseModel):
    """The content of deckard.json: what rendered a folder, and from what.

    config: relative to the folder. models: the folder of the weights, if one was named. asked: the choice,
    as `Resolved.asked`. files: the SHA-256 of
    each rendered file.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: str
    plan: str
    launch_id: str
    profile: str | None
    config: str | None
    settings: list[str]
    models: str | None
    asked: str
    files: dict[str, str]

    @field_validator("files")
    @classmethod
    def _inside_folder(cls, files: dict[str, str]) -> dict[str, str]:
        """Refuse a path that leads out of the folder: files that are not rendered any more are removed."""
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{name!r} is not in the folder")
        return files


def write_folder(  # noqa: PLR0913  one parameter per option
    choice: Choice,
    folder: Path,
    report: Reporter,
    *,
    models_dir: str | None = None,
    wheel: str | None = None,
    locked: bool = False,
) -> LaunchPlan:
    """Write everything that another machine needs to run a choice, without weights and keys.

    models_dir: the folder of the weights there. wheel: a vLLM wheel to build the patched files from; default: the
    release's own. Raises BadInputError for a choice without an image and for a folder with other content,
    IntegrityError when a rendered file was changed by hand.
    """
    resolved, plan = _plan(choice, report, locked=locked)
    texts = rendering.render_folder(plan, resolved, models=models_dir)
    _require_own_folder(folder, texts)
    record = FolderRecord(
        version=__version__,
        plan=plan.hash,
        launch_id=rendering.launch_id(plan),
        profile=choice.profile,
        config=_config_of(choice, folder),
        settings=list(choice.settings),
        models=models_dir,
        asked=resolved.asked,
        files=_hashes(plan, texts),
    )
    _build(plan, folder, wheel, report)
    _remove_old(folder, record)
    for name, text in texts.items():
        if name not in _OF_MACHINE or not (folder / name).exists():
            _write(folder / name, text)
    _write(folder / RECORD, record.model_dump_json(indent=1) + "\n")
    return plan


def drift(folder: Path, report: Reporter) -> Iterator[str]:
    """Yield a line for each file that was changed by hand, or that would be rendered differently now.

    Raises BadInputError for a folder that was not rendered, and for a choice that is not valid any more.
    """
    record = read_record(folder)
    changed = dict(_changed_files(folder, record))
    for name, how in changed.items():
        yield f"{name}: {how}"
    config = Path(os.path.normpath(folder / record.config)) if record.config else None
    choice = Choice(profile=record.profile, config=config, settings=tuple(record.settings))
    resolved, plan = _plan(choice, report, locked=False)
    texts = rendering.render_folder(plan, resolved, models=record.models)
    wanted = _hashes(plan, texts)
    for name in sorted((wanted.keys() | record.files.keys()) - changed.keys()):
        if name not in wanted:
            yield f"{name}: not rendered any more"
        elif name not in record.files:
            yield f"{name}: rendered now, and missing here"
        elif wanted[name] != record.files[name] and not _same_without_comments(
            folder / name, texts.get(name)
        ):
            yield f"{name}: rendered differently now"


def read_record(folder: Path) -> FolderRecord:
    """Return the record of a rendered folder. Raises BadInputError."""
    try:
        return FolderRecord.model_validate_json(read_regular(folder / RECORD))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInputError(
            f"{folder} was not written by `render all`: it has no {RECORD}",
            hint=f"deckard-deploy render all --profile NAME -o {folder}",
        ) from error
    except ValidationError as error:
        raise BadInputError(f"{folder / RECORD} is damaged", hint="render the folder again") from error


def read_plan(folder: Path, record: FolderRecord) -> LaunchPlan:
    """Return the plan of a rendered folder, with the folder's relative paths. Raises IntegrityError."""
    text = read_regular(folder / rendering.PLAN)
    try:
        plan = LaunchPlan.model_validate_json(text)
    except ValidationError as error:
        raise IntegrityError(
            f"{folder / rendering.PLAN} is damaged", hint="render the folder again"
        ) from error
    if plan_hash(json.loads(text)) != record.plan:
        raise IntegrityError(
            f"{folder / rendering.PLAN} is not plan {record.plan}", hint="render the folder again"
        )
    return plan


def require_unchanged(folder: Path, record: FolderRecord) -> None:
    """Raise IntegrityError if a rendered file was changed by hand."""
    for name, how in _changed_files(folder, record):
        raise IntegrityError(
            f"{folder / name}: {how}",
            hint=f"put the change into the profile or deckard.yaml, then: rm {folder / name}, and render again",
        )


def machine_settings(folder: Path) -> dict[str, str]:
    """Return the variables in the folder's .env."""
    values = dict(rendering.DEFAULTS)
    for line in read_regular(folder / rendering.ENVIRONMENT).splitlines():
        name, found, value = line.partition("=")
        if found and name in values:
            values[name] = value.strip()
    return values


def _plan(choice: Choice, report: Reporter, *, locked: bool) -> tuple[Resolved, LaunchPlan]:
    resolved = resolve_choice(choice, report)
    if resolved.replicas is not None:
        raise BadInputError(
            "render all is for one engine: take --replicas out", hint="deckard-deploy render compose"
        )
    if resolved.compatibility:
        raise BadInputError(f"--compat {choice.compat} is a launch line of your own, not a folder")
    if resolved.engine.runtime != "docker":
        raise BadInputError(
            f"{resolved.engine.name} runs without Docker", hint="deckard-deploy render command …"
        )
    paths = rendering.PATHS
    plan = rendering.folder_plan(build_plan(resolved, paths))
    plan = apply_lock(with_needed_patches(plan, resolved, paths.patches))
    if locked:
        require_locked(resolved, plan)
    return resolved, plan


def _hashes(plan: LaunchPlan, texts: dict[str, str]) -> dict[str, str]:
    """Return the SHA-256 of each file of the folder, without those of one machine."""
    hashes = {}
    for name, text in texts.items():
        if name not in _OF_MACHINE:
            hashes[name] = sha256(text.encode()).hexdigest()
    for mount in plan.built:
        hashes[mount.source] = mount.sha256
    return hashes


def _config_of(choice: Choice, folder: Path) -> str | None:
    """Return the path of the deckard.yaml that the choice reads, relative to the folder."""
    if choice.config is None and not DEFAULT_FILE.exists():
        return None
    return os.path.relpath(choice.config or DEFAULT_FILE, folder)


def _require_own_folder(folder: Path, texts: dict[str, str]) -> None:
    """Refuse to write over files that are not of `render all`, or that were changed by hand."""
    if (folder / RECORD).exists():
        record = read_record(folder)
        kept = {name: digest for name, digest in record.files.items() if (folder / name).exists()}
        require_unchanged(folder, record.model_copy(update={"files": kept}))
        return
    for name in texts:
        if (folder / name).exists():
            raise BadInputError(
                f"{folder / name} exists, and was not written by `render all`",
                hint="-o with a folder of its own",
            )


def _changed_files(folder: Path, record: FolderRecord) -> Iterator[tuple[str, str]]:
    for name, digest in record.files.items():
        path = folder / name
        if not path.is_file():
            yield name, "missing"
        elif sha256(path.read_bytes()).hexdigest() != digest:
            yield name, "changed by hand"


def _same_without_comments(path: Path, text: str | None) -> bool:
    """Return True if a file differs from a text in comments alone: one holds the version of this tool."""
    if text is None:
        return False
    name = path.name
    return content_hashes({name: path.read_text(encoding="utf-8")}) == content_hashes({name: text})


def _build(plan: LaunchPlan, folder: Path, wheel: str | None, report: Reporter) -> None:
    """Write the files that this tool builds for a plan into the folder. Raises IntegrityError, NetworkError."""
    if plan.plugin:
        plugin.build(plan.plugin.name, folder / plan.plugin.source)
    if plan.request_filter:
        request_filter.build(folder / plan.request_filter.source)
    if not plan.patches:
        return
    patch_set, patches = patches_of(plan)
    base = base_files(patch_set, {"wheel": wheel}, report)
    build.build(patch_set, base, folder / patch_folder(plan), patches)


def _remove_old(folder: Path, record: FolderRecord) -> None:
    """Remove the files of the last rendering that are not rendered any more."""
    if not (folder / RECORD).exists():
        return
    for name in read_record(folder).files.keys() - record.files.keys():
        (folder / name).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text, mode=UMASK_MODE)
