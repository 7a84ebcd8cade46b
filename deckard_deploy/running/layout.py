"""The state directory: all files of this tool on a host.

<root>/                                 0700, and so is every folder below
  deployments/<name>/
    lock, lock.owner                    lock.py
    current  -> releases/<plan hash>    the release that was last proven ready
    previous -> releases/<plan hash>    the one before it
    releases/<plan hash>/               releases.py
    watch.json                          watch.py
    group.json                          group.py: of a front; its replicas are <name>-1, <name>-2, …
    replicas/<number>.sock              group.py: a link to the socket of a replica that gets requests
    process.json, process.lock          process runtime: the server's state, the supervisor's lock
  models/  cache/  engines/  configurations/
  own-models/<name>.yaml                model files that `models add` wrote
  startups.jsonl
  bench/<id>.json                       benchmark records
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.system.files import clear_leftovers, private_folder

GROUP = "group.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NAME_RULE = "lower-case letters, digits and . _ - only, 63 at most"


def default_root() -> Path:
    """Return the state directory of a user who names none (platformdirs honours XDG_DATA_HOME)."""
    return user_data_path("deckard-deploy")


@dataclass(frozen=True)
class DeploymentDir:
    """The folder of one deployment, and the paths in it."""

    name: str
    folder: Path

    @property
    def lock(self) -> Path:
        """The lock that a verb holds while it changes the deployment."""
        return self.folder / "lock"

    @property
    def lock_owner(self) -> Path:
        """The holder of the lock; valid only while the lock is held."""
        return self.folder / "lock.owner"

    @property
    def current(self) -> Path:
        """The link to the release that was last proven ready."""
        return self.folder / "current"

    @property
    def previous(self) -> Path:
        """The link to the release that was current before."""
        return self.folder / "previous"

    @property
    def releases(self) -> Path:
        """The folder with one folder per plan hash."""
        return self.folder / "releases"

    @property
    def gateway(self) -> Path:
        """The files that the gateway of every release reads (gateway/files.py)."""
        return self.folder / "gateway"

    @property
    def watch(self) -> Path:
        """The record of `watch`."""
        return self.folder / "watch.json"

    @property
    def watch_lock(self) -> Path:
        """The lock that `watch` holds as long as it lives, so that there is only one."""
        return self.folder / "watch.lock"

    @property
    def group(self) -> Path:
        """The record of the replicas behind this front; another deployment has none."""
        return self.folder / GROUP

    @property
    def members(self) -> Path:
        """The folder with a link to the socket of each replica that gets requests."""
        return self.folder / "replicas"

    @property
    def process_state(self) -> Path:
        """The state of the server, written by the supervisor of the process runtime."""
        return self.folder / "process.json"

    @property
    def process_lock(self) -> Path:
        """The lock that the supervisor holds as long as it lives, so that there is only one."""
        return self.folder / "process.lock"


@dataclass(frozen=True)
class StateDir:
    """The state directory at `root`, which may not exist yet."""

    root: Path

    @property
    def models(self) -> Path:
        """The folder with one folder per model."""
        return self.root / "models"

    @property
    def configurations(self) -> Path:
        """The small files of repositories of the hub that `--model` named, and their settled commits."""
        return self.root / "configurations"

    @property
    def own_models(self) -> Path:
        """The folder of the model files that `models add` wrote."""
        return self.root / "own-models"

    @property
    def cache(self) -> Path:
        """The compiled kernels, one folder per engine."""
        return self.root / "cache"

    @property
    def engines(self) -> Path:
        """The environments of the process engines."""
        return self.root / "engines"

    @property
    def startups(self) -> Path:
        """The durations of earlier starts, one JSON object a line."""
        return self.root / "startups.jsonl"

    @property
    def bench(self) -> Path:
        """The benchmark records."""
        return self.root / "bench"

    def deployment(self, name: str) -> DeploymentDir:
        """Return the paths of a deployment; create nothing. Raises BadInputError for an invalid name."""
        if not is_deployment_name(name):
            raise BadInputError(
                f"{name[:80]!r} is not a deployment name",
                hint=NAME_RULE,
            )
        return DeploymentDir(name, self.root.absolute() / "deployments" / name)

    def create(self, name: str) -> DeploymentDir:
        """Return the paths of a deployment, with its folders created.

        Raises IntegrityError for a link in the place of a folder, OSError.
        """
        deployment = self.deployment(name)
        for folder in (
            self.root.absolute(),
            deployment.folder.parent,
            deployment.folder,
            deployment.releases,
        ):
            private_folder(folder)
        for folder in (self.root.absolute(), deployment.folder.parent):
            clear_leftovers(folder)
        return deployment

    def deployments(self) -> list[str]:
        """Return the names of all deployments, sorted; without the replicas, which belong to their fronts."""
        found = self.with_replicas()
        return [name for name in found if self.front_of(name) is None]

    def front_of(self, name: str) -> str | None:
        """Return the front of a replica's deployment, None for another deployment."""
        front, _, number = name.rpartition("-")
        if not _NAME.fullmatch(front) or not number.isdecimal():
            return None
        return front if (self.root / "deployments" / front / GROUP).is_file() else None

    def with_replicas(self) -> list[str]:
        """Return the names of all deployments, sorted, with each replica."""
        folder = self.root / "deployments"
        if not folder.is_dir():
            return []
        found = []
        for entry in folder.iterdir():
            if _NAME.fullmatch(entry.name) and entry.is_dir() and _has_releases(entry):
                found.append(entry.name)
        return sorted(found)


def is_deployment_name(name: str) -> bool:
    """Return True if a deployment may have the name."""
    return _NAME.fullmatch(name) is not None


def state_directory(root: Path | None) -> StateDir:
    """Return the state directory; None: DECKARD_HOME, or the user's own. Nothing is made.

    Raises EnvironmentUnfitError.
    """
    if root is None and os.environ.get("DECKARD_HOME"):
        root = Path(os.environ["DECKARD_HOME"])
    if root is None:
        with home_required():
            root = default_root()
    # The folder itself may be a link, to a bigger disk. Not Path.resolve: RuntimeError for links in a circle.
    return StateDir(Path(os.path.realpath(root)))


@contextmanager
def home_required() -> Iterator[None]:
    """Turn a missing home directory (as for an anonymous uid in a container) into EnvironmentUnfitError."""
    try:
        yield
    except RuntimeError as error:  # pathlib's and platformdirs'
        raise EnvironmentUnfitError(
            f"HOME is not set, and user {os.getuid()} has no home", hint="export HOME=/a/folder/of/yours"
        ) from error


def _has_releases(deployment: Path) -> bool:
    """Return False for a deployment whose first `up` was refused before it had a release."""
    if (deployment / "process.json").exists():
        return True
    if (deployment / GROUP).exists():
        return True
    releases = deployment / "releases"
    return releases.is_dir() and any(releases.iterdir())
