"""One writer per deployment.

The kernel holds the lock (flock), so a killed holder holds nothing. Who holds it stands in a file beside it, which
is believed only while the lock is held and only if it names a process that still lives: after a kill it is stale.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from deckard_deploy.errors import DeploymentBusyError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.system.files import read_regular, write_atomically
from deckard_deploy.system.processes import ProcessIdentity, identity_of, is_alive

_NAMED_WITHIN_S = 0.5  # a holder writes its name right after it took the lock


class LockOwner(BaseModel):
    """Who holds a deployment, and since when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: ProcessIdentity
    verb: str
    since: str


@contextmanager
def held(deployment: DeploymentDir, *, verb: str) -> Iterator[None]:
    """Hold the deployment for `verb`, or raise DeploymentBusyError naming who does. Never waits for the lock."""
    lock = FileLock(deployment.lock, timeout=0, mode=0o600)
    try:
        lock.acquire()  # guard: F38
    except Timeout:
        raise _busy(deployment) from None
    try:
        owner = LockOwner(
            process=identity_of(os.getpid()), verb=verb, since=datetime.now(UTC).isoformat("T", "seconds")
        )
        # It only helps others; on a full disk `down` must still work.
        with contextlib.suppress(EnvironmentUnfitError):
            write_atomically(deployment.lock_owner, owner.model_dump_json())
        yield
    finally:
        deployment.lock_owner.unlink(missing_ok=True)
        lock.release()


def owner_of(deployment: DeploymentDir) -> LockOwner | None:
    """Who last wrote that they hold it, if that process lives. Says nothing about the lock itself."""
    try:
        owner = LockOwner.model_validate_json(read_regular(deployment.lock_owner))
    except (FileNotFoundError, ValidationError, IntegrityError):
        return None  # between taking the lock and writing this; or not ours: the lock itself is what counts
    return owner if is_alive(owner.process) else None


def _busy(deployment: DeploymentDir) -> DeploymentBusyError:
    until = time.monotonic() + _NAMED_WITHIN_S
    while (owner := owner_of(deployment)) is None and time.monotonic() < until:
        time.sleep(0.02)
    if owner is None:
        return DeploymentBusyError(
            f"another deckard-deploy has just taken deployment {deployment.name}",
            hint="try again in a second",
        )
    return DeploymentBusyError(
        f"deployment {deployment.name} is held by pid {owner.process.pid}, "
        f"`deckard-deploy {owner.verb}`, since {owner.since}",
        hint=f"wait for it, or end it: kill -TERM {owner.process.pid}",
    )
