"""Release folders: the files rendered for a plan, and the record of its last launch.

releases/<plan hash>/
  plan.json, compose.yaml, nginx.conf, command.txt  as the caller rendered them
  asked.json                                        what the user has asked for, and the version that planned it
  launch.json                                       the last launch: Launch
  vllm.log, vllm.log.1                              process runtime; docker keeps its own log
  failure.log                                       the log of the last failure
  endpoint.txt                                      docker: the daemon's socket, `unix://…`
  adopted.json                                      of a stack that `adopt` took over: Adopted
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deckard_deploy.errors import BadInputError, DeployError, IntegrityError
from deckard_deploy.planning.plan import LaunchPlan, plan_hash
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.system.files import (
    clear_leftovers,
    link_atomically,
    private_folder,
    read_regular,
    remove_folder,
    sync_folder,
    temporary_prefix,
    translating_write_errors,
    try_write,
    write_atomically,
)

KEPT = 3
PLAN = "plan.json"
COMPOSE = "compose.yaml"
GATEWAY = "nginx.conf"
ASKED = "asked.json"
LAUNCH = "launch.json"
FAILURE_LOG = "failure.log"
ADOPTED = "adopted.json"
ENDPOINT = "endpoint.txt"
RENDERED_FOLDER = "deckard.json"  # in each folder of `render all`
_HASH = re.compile(r"[0-9a-f]{12}")


class Launch(BaseModel):
    """One attempt to run a release.

    launch_id: a nonce, by which the readiness probe recognises exactly this launch.
    rendered: the SHA-256 of each file that it runs from, without the file's comments.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    launch_id: str
    started_at: str
    state: Literal["starting", "ready", "failed", "stopped"]
    runtime: Literal["docker", "process"]
    base_url: str
    instance_id: str | None = None
    restart_count: int = 0
    reason: str | None = None
    rendered: dict[str, str] = Field(default_factory=dict)


class Adopted(BaseModel):
    """The rendered folder that an adopted stack was started from, and the values of its .env at that time."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    folder: str
    variables: dict[str, str]


@dataclass(frozen=True, eq=False)
class ReleaseFolder:
    """One release folder, named by its plan's hash. Its plan was not read, so it may be damaged.

    A folder equals the release that was loaded from it.
    """

    folder: Path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReleaseFolder) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    @property
    def plan_hash(self) -> str:
        """The hash of the plan: twelve hex digits."""
        return self.folder.name

    def load(self) -> "Release":
        """Return the release with its plan, verified by the folder's name. Raises IntegrityError.

        The file is hashed, not the model, so that a version of this tool with a new field still reads an old
        plan.
        """
        text = self.text(PLAN)
        try:
            plan = LaunchPlan.model_validate_json(text)
        except ValidationError as error:
            raise self._corrupt(PLAN) from error
        found = plan_hash(json.loads(text))
        if found != self.plan_hash:
            raise self._unusable(f"{self.folder / PLAN} is plan {found}, not {self.plan_hash}")
        adopted = self._adopted()
        if adopted:
            plan = plan.located(PurePosixPath(adopted.folder), adopted.variables)
        return Release(self.folder, plan)

    def adopted_from(self) -> Path | None:
        """Return the rendered folder that the release was adopted from; None for a release of this tool."""
        adopted = self._adopted()
        return Path(adopted.folder) if adopted else None

    def endpoint(self) -> str | None:
        """Return the socket of the docker daemon that last ran the release; None if it is not recorded."""
        try:
            return read_regular(self.folder / ENDPOINT).strip() or None
        except FileNotFoundError:
            return None

    def _adopted(self) -> Adopted | None:
        try:
            return Adopted.model_validate_json(read_regular(self.folder / ADOPTED))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise self._corrupt(ADOPTED) from error

    def launch(self) -> Launch | None:
        """Return the last launch, None if there was none. Raises IntegrityError.

        It is read each time: the supervisor and other verbs change it.
        """
        try:
            return Launch.model_validate_json(read_regular(self.folder / LAUNCH))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise self._corrupt(LAUNCH) from error

    def launch_or_none(self) -> Launch | None:
        """Return the last launch, None if there was none or its record is damaged."""
        try:
            return self.launch()
        except IntegrityError:
            return None

    def recorded_launch(self) -> Launch:
        """Return the last launch. Raises IntegrityError, also if there was none."""
        launch = self.launch()
        if launch is None:
            raise self._corrupt(LAUNCH)
        return launch

    def record(self, launch: Launch) -> Launch:
        """Write the launch atomically, and return it."""
        write_atomically(self.folder / LAUNCH, launch.model_dump_json(indent=1) + "\n")
        return launch

    def try_record(self, launch: Launch) -> bool:
        """Write the launch. Return False if the file system refuses."""
        return try_write(self.folder / LAUNCH, launch.model_dump_json(indent=1) + "\n")

    def text(self, name: str) -> str:
        """Return the text of a stored file. Raises IntegrityError if it is missing."""
        try:
            return read_regular(self.folder / name)
        except FileNotFoundError as error:
            raise self._corrupt(name) from error

    def _corrupt(self, name: str) -> IntegrityError:
        return self._unusable(f"{self.folder / name} is missing or damaged")

    def _unusable(self, message: str) -> IntegrityError:
        return IntegrityError(
            message,
            hint=f"deckard-deploy down --name {self.folder.parents[1].name}, then: rm -r {self.folder}",
        )


@dataclass(frozen=True, eq=False)
class Release(ReleaseFolder):
    """A release folder with its plan, which was read and verified once."""

    plan: LaunchPlan

    def load(self) -> "Release":
        """Return this release."""
        return self


def adopted_folders(deployment: DeploymentDir) -> set[str]:
    """Return the rendered folders that releases of a deployment were adopted from."""
    folders = set()
    for release in Releases(deployment).all():
        folder = release.adopted_from()
        if folder:
            folders.add(str(folder))
    return folders


class Releases:
    """All releases of one deployment. A caller that changes them holds the deployment's lock.

    No plan is read to list them, so that a damaged release can be stopped and removed.
    """

    def __init__(self, deployment: DeploymentDir) -> None:
        self.deployment = deployment

    def get(self, plan_hash: str) -> ReleaseFolder | None:
        """Return the release of that plan, None if there is none. Raises BadInputError, IntegrityError."""
        if not _HASH.fullmatch(plan_hash):
            raise BadInputError(
                f"{plan_hash[:80]!r} is not a release", hint="twelve hexadecimal digits name one"
            )
        folder = self.deployment.releases / plan_hash
        if folder.is_symlink():
            raise IntegrityError(f"{folder} is a link, not a release", hint=f"rm {folder}")
        return ReleaseFolder(folder) if folder.is_dir() else None

    def all(self) -> list[ReleaseFolder]:
        """Return every release, the last used first."""
        if not self.deployment.releases.is_dir():
            return []
        found = []
        for entry in self.deployment.releases.iterdir():
            if not _HASH.fullmatch(entry.name):
                continue
            release = self.get(entry.name)
            if release:
                found.append(release)
        return sorted(found, key=_last_used, reverse=True)

    def last_failed(self) -> ReleaseFolder | None:
        """Return the last used release of those whose last launch failed."""
        for release in self.all():
            launch = release.launch_or_none()
            if launch and launch.state == "failed":
                return release
        return None

    def last_failure_log(self) -> Path | None:
        """Return the newest log of a failure, None if none was kept."""
        logs = [release.folder / FAILURE_LOG for release in self.all()]
        kept = [log for log in logs if log.is_file()]
        return max(kept, key=lambda log: log.stat().st_mtime_ns, default=None)

    def never_started(self) -> bool:
        """Return True if no launch of any release was ever recorded."""
        if self.deployment.process_state.exists() or self.deployment.current.is_symlink():
            return False
        return not any(self.deployment.releases.glob(f"*/{LAUNCH}"))

    def current(self) -> ReleaseFolder | None:
        """Return the release that was last proven ready. Raises IntegrityError."""
        return self._linked(self.deployment.current)

    def previous(self) -> ReleaseFolder | None:
        """Return the release that was current before. Raises IntegrityError."""
        return self._linked(self.deployment.previous)

    def store(self, plan_hash: str, contents: Mapping[str, str]) -> ReleaseFolder:
        """Write the rendered files (name -> text) of a release; leave files with the same text unchanged.

        Each file is written atomically, and the folder appears with all of them. Raises BadInputError,
        IntegrityError, EnvironmentUnfitError (disk full).
        """
        release = self.get(plan_hash)
        if release:
            _write_all(release.folder, contents)
            return release
        unfinished = private_folder(self.deployment.releases / f"{temporary_prefix()}{plan_hash}")
        try:
            _write_all(unfinished, contents)
        except DeployError:
            remove_folder(unfinished)
            raise
        with translating_write_errors(self.deployment.releases):
            release = ReleaseFolder(unfinished.rename(self.deployment.releases / plan_hash))
            sync_folder(self.deployment.releases)
        return release

    def endpoint(self) -> str | None:
        """Return the socket of the docker daemon that runs the deployment, by the records; None if none does."""
        for release in self.all():
            launch = release.launch_or_none()
            if launch and launch.runtime == "docker" and launch.state in ("starting", "ready"):
                return release.endpoint()
        return None

    def switch(self, release: ReleaseFolder) -> None:
        """Make the release current, in one step; the current one becomes previous."""
        current = self.current()
        if current == release:
            return
        if current:
            link_atomically(self.deployment.previous, f"releases/{current.plan_hash}")
        link_atomically(self.deployment.current, f"releases/{release.plan_hash}")

    def prune(self, keep: int = KEPT) -> None:
        """Remove all but the `keep` last used releases. Current and previous always stay."""
        linked = [release for release in (self.current(), self.previous()) if release]
        others = [release for release in self.all() if release not in linked]
        for release in others[max(0, keep - len(set(linked))) :]:
            remove_folder(release.folder)

    def clear_leftovers(self) -> None:
        """Remove the leftovers of killed writers. A verb calls this first after it took the lock."""
        clear_leftovers(self.deployment.folder, below=True)

    def _linked(self, link: Path) -> ReleaseFolder | None:
        if not link.is_symlink():
            # `scp -r` copies the targets of links as folders. No link could replace such a folder after the
            # start.
            if link.exists():
                raise IntegrityError(f"{link} is not a link to a release", hint=f"rm -r {link}")
            return None
        parent, _, plan_hash = str(link.readlink()).rpartition("/")
        if parent != "releases" or not _HASH.fullmatch(plan_hash):
            raise IntegrityError(f"{link} points at {link.readlink()}, not at a release", hint=f"rm {link}")
        return self.get(plan_hash)


def _write_all(folder: Path, contents: Mapping[str, str]) -> None:
    for name, text in contents.items():
        _write_if_changed(folder, name, text)


def _write_if_changed(folder: Path, name: str, text: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name or path.name == LAUNCH:
        raise BadInputError(f"{name!r} cannot be a file of a release")
    target = folder.joinpath(path)
    private_folder(target.parent)
    try:
        if read_regular(target) == text:
            return
    except (FileNotFoundError, IntegrityError):
        pass  # a new or damaged file is written below
    # The user in the container may be another one and must read the file; the folders above are private.
    write_atomically(target, text, mode=0o644)


def _last_used(release: ReleaseFolder) -> int:
    launch = release.folder / LAUNCH
    if launch.exists():
        return launch.stat().st_mtime_ns
    return release.folder.stat().st_mtime_ns
