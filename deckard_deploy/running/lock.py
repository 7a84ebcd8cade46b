"""The lock of a deployment: one writer at a time.

The kernel keeps the lock (flock), so a kill releases it. A file next to the lock names the holder. The file
is valid only while the lock is held, and only if the process that it names still lives: after a kill it is
stale.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from deckard_deploy.errors import DeploymentBusyError, IntegrityError
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.system.files import read_regular, try_write
from deckard_deploy.system.processes import ProcessIdentity, identity_of, is_alive

_OWNER_WAIT_S = 0.5  # a holder writes the file right after it took the lock


class LockOwner(BaseModel):
    """The holder of a deployment's lock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: ProcessIdentity
    verb: str
    since: str


@contextmanager
def lock_deployment(deployment: DeploymentDir, *, verb: str) -> Iterator[None]:
    """Hold the deployment for `verb`. Raises DeploymentBusyError, which names the holder; never waits."""
    lock = FileLock(deployment.lock, timeout=0, mode=0o600)
    try:
        lock.acquire()  # guard: F38
    except Timeout:
        raise _busy(deployment) from None
    try:
        owner = LockOwner(
            process=identity_of(os.getpid()), verb=verb, since=datetime.now(UTC).isoformat("T", "seconds")
        )
        # The file only informs others, and `down` must work on a full disk.
        try_write(deployment.lock_owner, owner.model_dump_json())
        yield
    finally:
        deployment.lock_owner.unlink(missing_ok=True)
        lock.release()


def owner_of(deployment: DeploymentDir) -> LockOwner | None:
    """Return the last process that wrote that it holds the lock, None if it has ended.

    The lock itself is not checked.
    """
    try:
        owner = LockOwner.model_validate_json(read_regular(deployment.lock_owner))
    except (FileNotFoundError, ValidationError, IntegrityError):
        return None  # the holder has not written it yet, or it is damaged; only the lock itself counts
    return owner if is_alive(owner.process) else None


def _busy(deployment: DeploymentDir) -> DeploymentBusyError:
    until = time.monotonic() + _OWNER_WAIT_S
    owner = owner_of(deployment)
    while owner is None and time.monotonic() < until:
        time.sleep(0.02)
        owner = owner_of(deployment)
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
