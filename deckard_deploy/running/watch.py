"""Watch over a deployment: a canary at intervals, and a bounded number of restarts, each with its reason.

watch.json in the deployment's folder is the record. Waits and bounds use the monotonic clock, which a change
of the date does not move; dates are for readers.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from deckard_deploy.errors import (
    BadInputError,
    DeployError,
    DeploymentBusyError,
    EnvironmentUnfitError,
    IntegrityError,
    StartFailedError,
)
from deckard_deploy.running.deploy import (
    FAILURE_LINES,
    DeploymentContext,
    decide,
    deploy,
    observe,
    relaunch,
    resume,
)
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import FAILURE_LOG, Launch, Release, ReleaseFolder
from deckard_deploy.system.files import read_regular, translating_write_errors, try_write
from deckard_deploy.system.processes import ProcessIdentity, boot_id, identity_of, is_alive

PATIENCE = 3  # failed canaries in a row before a running server is restarted
MAX_RESTARTS, WINDOW_S = 2, 3600.0
MAX_RECORDED = 20  # restarts in the record
WatchState: TypeAlias = Literal["starting", "healthy", "degraded", "given up"]


class Restart(BaseModel):
    """One restart by the watch. outcome: `ready`, or the error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    reason: str
    outcome: str
    boot: str
    monotonic_s: float  # CLOCK_MONOTONIC of Linux: since boot, the same for every process


class WatchRecord(BaseModel):
    """The state of the deployment in the view of the watch, and the process of the watch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: ProcessIdentity
    state: WatchState
    since: str
    reason: str | None = None
    restarts: tuple[Restart, ...] = ()


@dataclass(frozen=True)
class Canary:
    """The result of one question to a running server. final: another question cannot have another result."""

    answered: bool
    detail: str
    final: bool = False


def read(deployment: DeploymentDir) -> WatchRecord | None:
    """Return the record, None if there is none or it is damaged."""
    try:
        return WatchRecord.model_validate_json(read_regular(deployment.watch))
    except (FileNotFoundError, ValidationError, IntegrityError):
        return None


@contextlib.contextmanager
def exclusive_watch(deployment: DeploymentDir) -> Iterator[None]:
    """Hold the watch lock. Raises DeploymentBusyError: two watches would have separate bounds and records."""
    lock = FileLock(deployment.watch_lock, timeout=0, mode=0o600)
    with translating_write_errors(deployment.watch_lock):
        try:
            lock.acquire()
        except Timeout:
            raise _watched_already(deployment) from None
    try:
        yield
    finally:
        lock.release()


def _watched_already(deployment: DeploymentDir) -> DeploymentBusyError:
    message = f"deployment {deployment.name} is watched already"
    record = read(deployment)
    if record is None or not is_alive(record.process):  # the record belongs to an earlier watch
        return DeploymentBusyError(message, hint="end it: pgrep -af 'deckard.* watch'")
    pid = record.process.pid
    return DeploymentBusyError(f"{message} by pid {pid}", hint=f"end it: kill -TERM {pid}")


class Watch:
    """The watch over the current release. canary: asks the server. say: receives a line of progress."""

    def __init__(
        self, deployment: DeploymentDir, *, canary: Callable[[Release], Canary], say: Callable[[str], None]
    ) -> None:
        self._deployment = deployment
        self._canary = canary
        self._say = say
        self._failures = 0
        before = read(deployment)
        self._record = WatchRecord(
            process=identity_of(os.getpid()),
            state="starting",
            since=_now(),
            restarts=before.restarts if before else (),
        )
        self._write()

    def start(self, site: DeploymentContext) -> bool:
        """Start the current release if nothing runs, as after a reboot. Return False while another verb runs.

        `check` tries a failed start again. Raises BadInputError if no release was ever ready.
        """
        release = _current(site)
        if observe(site.runtimes).state in ("missing", "exited"):
            self._say(f"start    {release.plan_hash}: nothing runs")
            try:
                with lock_deployment(self._deployment, verb="watch"):
                    deploy(site, release, relaunch(release))
            except DeploymentBusyError:
                return False
            except DeployError as error:
                self._start_failed(release, error)
                return True
        self._set_state("healthy")
        return True

    def check(self, site: DeploymentContext) -> bool:
        """Check the deployment once. Return False if there is nothing left to watch.

        site: opened anew for each round, because the runtime may have changed since the last one.
        Raises StartFailedError when the watch gives up.
        """
        try:
            return self._round(site)
        except DeploymentBusyError:
            return True  # an `up` or a `down` is running
        except (EnvironmentUnfitError, IntegrityError) as error:  # guard: F34
            # Docker or a disk is unavailable; a restart does not help.
            self._set_state("degraded", error.message)
            return True

    def _round(self, site: DeploymentContext) -> bool:
        if not self._deployment.folder.is_dir():
            return False  # the deployment was purged
        release = _current(site)
        launch = release.recorded_launch()
        problem = None
        if launch.state not in ("stopped", "starting"):
            problem, certain = self._problem(site, release, launch)
            if problem is None:
                self._failures = 0
                self._set_state("healthy")
                return True
            self._failures += 1
            if not certain and self._failures < PATIENCE:
                self._set_state("degraded", problem)
                return True
        with lock_deployment(self._deployment, verb="watch"):
            if site.releases.current() != release or release.recorded_launch() != launch:
                return True  # another verb has changed the deployment since the check
            return self._act(site, release, launch, problem)

    def _act(
        self, site: DeploymentContext, release: ReleaseFolder, launch: Launch, problem: str | None
    ) -> bool:
        """Restart or resume, holding the deployment lock. Return False if there is nothing left to watch."""
        if launch.state == "stopped":
            # A `down` stopped it, or the `up` of another release that was killed then. In the second case,
            # wait for the next `up`.
            if not any(_is_starting(each) for each in site.releases.all()):
                return False
            self._set_state("degraded", "an `up` was interrupted: run it again")
            return True
        if problem is None and observe(site.runtimes).state in ("missing", "exited"):
            problem = "its start was interrupted"
        if problem is None:
            self._set_state("starting")
            try:
                resume(site, release)
            except DeployError as error:
                self._start_failed(release, error)
        else:
            self._restart(site, release, problem)
        return True

    def _problem(
        self, site: DeploymentContext, release: ReleaseFolder, launch: Launch
    ) -> tuple[str | None, bool]:
        """Return the problem, None if there is none, and whether one check is enough to be sure of it."""
        decision = decide(release.plan_hash, observe(site.runtimes), launch)
        if decision.action != "nothing":
            return decision.cause, True
        found = self._canary(release.load())
        return (None, True) if found.answered else (found.detail, found.final)  # guard: F27

    def _restart(self, site: DeploymentContext, release: ReleaseFolder, reason: str) -> None:
        self._set_state("degraded", reason)
        self._require_restart_allowed(reason)
        _keep_log(site, release, reason)
        self._say(f"restart  {release.plan_hash}: {reason}")
        self._add_restart(
            Restart(
                at=_now(), reason=reason, outcome="interrupted", boot=boot_id(), monotonic_s=time.monotonic()
            )
        )
        try:
            deploy(site, release, relaunch(release))
        except DeployError as error:
            self._set_outcome(error.message)
            self._start_failed(release, error)
            return
        self._failures = 0
        self._set_outcome("ready")
        self._set_state("healthy")

    def _start_failed(self, release: ReleaseFolder, error: DeployError) -> None:
        # This watch stopped it, so the record must not look like that of a release stopped by `down`.
        launch = release.launch_or_none()
        if launch and launch.state == "stopped":
            release.try_record(launch.model_copy(update={"state": "failed", "reason": error.message}))
        self._set_state("degraded", error.message)
        self._say(f"failed   {error.message}")

    def _require_restart_allowed(self, reason: str) -> None:
        """Raise StartFailedError if the maximum of restarts within the window is reached."""
        now = time.monotonic()
        boot = boot_id()
        recent = 0
        for restart in self._record.restarts:
            if restart.boot == boot and now - restart.monotonic_s < WINDOW_S:
                recent += 1
        if recent < MAX_RESTARTS:
            return
        self._set_state("given up", reason)
        raise StartFailedError(
            f"restarted {recent} times within an hour, and again: {reason}",
            hint=f"deckard-deploy status --name {self._deployment.name}, "
            f"and deckard-deploy logs --name {self._deployment.name}",
        )

    def _set_state(self, state: WatchState, reason: str | None = None) -> None:
        if (state, reason) == (self._record.state, self._record.reason):
            return
        if state != self._record.state:
            self._say(f"{state:8} {reason or self._deployment.name}")
        self._record = self._record.model_copy(update={"state": state, "reason": reason, "since": _now()})
        self._write()

    def _add_restart(self, restart: Restart) -> None:
        restarts = (*self._record.restarts, restart)[-MAX_RECORDED:]
        self._record = self._record.model_copy(update={"restarts": restarts})
        self._write()

    def _set_outcome(self, outcome: str) -> None:
        *earlier, last = self._record.restarts
        ended = last.model_copy(update={"outcome": outcome})
        self._record = self._record.model_copy(update={"restarts": (*earlier, ended)})
        self._write()

    def _write(self) -> None:
        # A full disk must not end the watch.
        try_write(self._deployment.watch, self._record.model_dump_json(indent=1) + "\n")


def _current(site: DeploymentContext) -> ReleaseFolder:
    release = site.releases.current()
    if release is None:
        raise BadInputError(
            f"{site.releases.deployment.name} was never ready: there is nothing to watch",
            hint=f"deckard-deploy up --name {site.releases.deployment.name}",
        )
    return release


def _is_starting(release: ReleaseFolder) -> bool:
    launch = release.launch_or_none()  # `down` ignores a damaged release as well
    return launch is not None and launch.state == "starting"


def _keep_log(site: DeploymentContext, release: ReleaseFolder, reason: str) -> None:
    lines = site.runtimes[release.recorded_launch().runtime].tail(FAILURE_LINES)
    if not lines:
        return  # a failed start has already kept its own log
    # A full disk must not prevent the restart.
    try_write(release.folder / FAILURE_LOG, "\n".join([reason, *lines]) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat("T", "seconds")
