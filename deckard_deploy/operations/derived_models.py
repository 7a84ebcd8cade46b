"""A model that the catalog does not have: its spec, derived from a folder or from a repository on the hub."""

import os
import re
import shlex
from pathlib import Path

from deckard_deploy.catalog.specs import HubRepository, LocalFolder
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.system.files import write_atomically
from deckard_deploy.system.text import escaped
from deckard_deploy.weights import hub
from deckard_deploy.weights.checkpoint import read_checkpoint
from deckard_deploy.weights.derivation import DerivedModel, derive, model_name
from deckard_deploy.weights.manifest import read_manifest
from deckard_deploy.weights.remote_checkpoint import read_remote_checkpoint

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+(@[A-Za-z0-9_./-]+)?")


def derive_model(reference: str, directory: StateDir | None, report: Reporter) -> DerivedModel:
    """Derive the spec of a folder or a repository.

    directory: keeps the configurations of repositories; None: the user's own. Raises BadInputError for neither,
    IntegrityError for an unsafe or damaged checkpoint, NetworkError.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return _derive_folder(folder)
    if reference.startswith(("/", "./", "../", "~")) or not REPOSITORY.fullmatch(reference):
        raise BadInputError(
            f"{reference}: no such folder",
            hint="--model ./FOLDER, owner/name of the hub, or a name of `models`",
        )
    return _derive_repository(reference, directory or state_directory(None), report)


def _derive_folder(folder: Path) -> DerivedModel:
    refuse_odd_files(folder)
    found = read_checkpoint(folder)
    absolute = folder.resolve()
    if ":" in str(absolute) or not str(absolute).isprintable():  # docker mounts SOURCE:TARGET
        raise IntegrityError(
            f"{escaped(str(absolute))}: a path with ':' or with characters that cannot be printed",
            hint="rename the folder",
        )
    name = model_name(absolute.name)
    return derive(
        found, name=f"local--{name}"[:63], served_name=name, weights=LocalFolder(folder=str(absolute))
    )


def refuse_odd_files(folder: Path) -> None:
    """Raise IntegrityError for a link to a file outside, a link to nothing, a pipe, a socket or a device.

    A container sees only the folder itself. Reading a pipe may block, and reading a device may not end.
    """
    root = folder.resolve()
    for path in sorted(folder.iterdir()):
        shown = escaped(str(path))
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            raise IntegrityError(
                f"{shown} is a link out of the folder, where the engine's container cannot follow",
                hint=f"cp -rL {shlex.quote(str(folder))} FOLDER",
            )
        if not path.is_file() and not path.is_dir():
            raise IntegrityError(
                f"{shown} is neither a file nor a folder", hint=f"ls -lb {shlex.quote(str(folder))}"
            )


def _derive_repository(reference: str, directory: StateDir, report: Reporter) -> DerivedModel:
    """Derive the spec of a repository at a commit; its weights stay on the hub.

    The first use of a branch settles its commit, and later uses keep it.
    """
    repo, _, revision = reference.partition("@")
    owner, _, short_name = repo.partition("/")
    name = model_name(f"{owner}--{short_name}")
    folder = directory.configurations / model_name(f"{name}--{revision or 'main'}")
    pinned = folder.with_suffix(folder.suffix + ".json")
    manifest = known = read_manifest(pinned)
    if manifest is None or manifest.repo != repo:
        manifest = hub.connect().resolve(repo, revision or None)
        report.say(f"weights  {repo} at commit {manifest.commit}")
    found = read_remote_checkpoint(manifest, folder, report.say)
    if manifest is not known:
        write_atomically(pinned, manifest.model_dump_json(indent=1, exclude_none=True) + "\n")
    return derive(
        found,
        name=name,
        served_name=model_name(short_name),
        weights=HubRepository(repo=repo, revision=manifest.commit),
    )
