"""The state directory: where everything of ours lies on this host.

<root>/                                 0700, and so is every folder below
  deployments/<name>/
    lock, lock.owner                    lock.py
    current  -> releases/<plan hash>    the release that was last proven ready
    previous -> releases/<plan hash>    the one before it
    releases/<plan hash>/               releases.py
    watch.json                          watch.py
    process.json, process.lock          process runtime: what its supervisor says, and that it lives
  models/  cache/  engines/
  startups.jsonl
  bench/<id>.json                       what was measured
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

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def default_root() -> Path:
    """The state directory when the user names none (XDG_DATA_HOME is honoured by platformdirs)."""
    return user_data_path("deckard-deploy")


@dataclass(frozen=True)
class DeploymentDir:
    """The folder of one deployment and the names in it."""

    name: str
    folder: Path

    @property
    def lock(self) -> Path:
        """Held while a verb changes the deployment."""
        return self.folder / "lock"

    @property
    def lock_owner(self) -> Path:
        """Who holds it; believed only while the lock is held."""
        return self.folder / "lock.owner"

    @property
    def current(self) -> Path:
        """Link to the release that was last proven ready."""
        return self.folder / "current"

    @property
    def previous(self) -> Path:
        """Link to the release that was current before."""
        return self.folder / "previous"

    @property
    def releases(self) -> Path:
        """One folder per plan hash."""
        return self.folder / "releases"

    @property
    def gateway(self) -> Path:
        """What the gateway of every release reads (gateway/files.py)."""
        return self.folder / "gateway"

    @property
    def watch(self) -> Path:
        """What `watch` last said."""
        return self.folder / "watch.json"

    @property
    def watch_lock(self) -> Path:
        """Held by `watch` as long as it lives: there is never a second one."""
        return self.folder / "watch.lock"

    @property
    def process_state(self) -> Path:
        """What the supervisor of the process runtime says of its server."""
        return self.folder / "process.json"

    @property
    def process_lock(self) -> Path:
        """Held by the supervisor as long as it lives: there is never a second one."""
        return self.folder / "process.lock"


@dataclass(frozen=True)
class StateDir:
    """The state directory at `root`, which need not exist yet."""

    root: Path

    @property
    def models(self) -> Path:
        """One folder per model."""
        return self.root / "models"

    @property
    def cache(self) -> Path:
        """Compiled kernels, one folder per engine."""
        return self.root / "cache"

    @property
    def engines(self) -> Path:
        """One environment per process engine."""
        return self.root / "engines"

    @property
    def startups(self) -> Path:
        """How long earlier starts took, a JSON object a line."""
        return self.root / "startups.jsonl"

    @property
    def bench(self) -> Path:
        """Benchmark records."""
        return self.root / "bench"

    def deployment(self, name: str) -> DeploymentDir:
        """The folder of a deployment; nothing is made. Raises BadInputError for a name that is no file name."""
        if not _NAME.fullmatch(name):
            raise BadInputError(
                f"{name[:80]!r} is not a deployment name",
                hint="lower-case letters, digits and . _ - only, 63 at most",
            )
        return DeploymentDir(name, self.root.absolute() / "deployments" / name)

    def create(self, name: str) -> DeploymentDir:
        """The same, with its folders made. Raises IntegrityError when a link stands in the place of one, OSError."""
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
        """The names of all deployments, sorted."""
        folder = self.root / "deployments"
        if not folder.is_dir():
            return []
        found = [entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir()]
        # One whose first `up` was refused before it had a release is none yet.
        return sorted(entry.name for entry in found if _has_any(entry))


def _has_any(deployment: Path) -> bool:
    releases, process_state = deployment / "releases", deployment / "process.json"
    return process_state.exists() or (releases.is_dir() and any(releases.iterdir()))


def state_directory(root: Path | None) -> StateDir:
    """Return the state directory; None: the user's own. Nothing is made. Raises EnvironmentUnfitError."""
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
