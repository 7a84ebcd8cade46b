"""Keep a deployment answering: a canary now and then, restarts within bounds, and why each of them was.

watch.json in the deployment's folder says how it goes. Waits and bounds go by the monotonic clock, which no change of
the date moves; dates are for people.
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
from deckard_deploy.running.deploy import FAILURE_LINES, Site, bring_up, decide, follow_up, observe, relaunch
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.running.lock import held
from deckard_deploy.running.releases import FAILURE_LOG, Launch, Release
from deckard_deploy.system.files import read_regular, write_atomically, writing
from deckard_deploy.system.processes import ProcessIdentity, boot_id, identity_of, is_alive

PATIENCE = 3  # canaries in a row that fail, before a server that runs is restarted
MAX_RESTARTS, WINDOW_S = 2, 3600.0
KEPT = 20  # restarts in the record
State: TypeAlias = Literal["starting", "healthy", "degraded", "given up"]


class Restart(BaseModel):
    """One restart by the watch. `outcome`: ready, or why not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    reason: str
    outcome: str
    boot: str
    monotonic_s: float


class WatchRecord(BaseModel):
    """What the watch last said, and who it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: ProcessIdentity
    state: State
    since: str
    reason: str | None = None
    restarts: tuple[Restart, ...] = ()


@dataclass(frozen=True)
class Canary:
    """One question to a server that runs. `final`: asking again cannot end otherwise."""

    answered: bool
    detail: str
    final: bool = False


def read(deployment: DeploymentDir) -> WatchRecord | None:
    """The record; None when there never was a watch, or when it is damaged."""
    try:
        return WatchRecord.model_validate_json(read_regular(deployment.watch))
    except (FileNotFoundError, ValidationError, IntegrityError):
        return None


@contextlib.contextmanager
def alone(deployment: DeploymentDir) -> Iterator[None]:
    """Be the deployment's only watch, or raise DeploymentBusyError: two would each have their own bounds and record."""
    lock = FileLock(deployment.watch_lock, timeout=0, mode=0o600)
    with writing(deployment.watch_lock):
        try:
            lock.acquire()
        except Timeout:
            raise _watched(deployment) from None
    try:
        yield
    finally:
        lock.release()


def _watched(deployment: DeploymentDir) -> DeploymentBusyError:
    what, other = f"deployment {deployment.name} is watched already", read(deployment)
    if other is None or not is_alive(other.process):  # the record is of an earlier watch
        return DeploymentBusyError(what, hint="end it: pgrep -af 'deckard.* watch'")
    return DeploymentBusyError(
        f"{what} by pid {other.process.pid}", hint=f"end it: kill -TERM {other.process.pid}"
    )


class Watch:
    """Watches the current release. `canary` asks it; `say` gets a line of progress."""

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

    def begin(self, site: Site) -> bool:
        """Start the current release if nothing runs, as after a reboot; False while another verb is at work.

        A start that fails is the first of those that `look` tries again. Raises BadInputError when none was ever ready.
        """
        release = _current(site)
        if observe(site.runtimes).state in ("missing", "exited"):
            self._say(f"start    {release.plan_hash}: nothing runs")
            try:
                with held(self._deployment, verb="watch"):
                    bring_up(site, release, relaunch(release))
            except DeploymentBusyError:
                return False
            except DeployError as error:
                self._fail(release, error)
                return True
        self._mark("healthy")
        return True

    def look(self, site: Site) -> bool:
        """One round; whether there is still something to watch. Raises StartFailedError when it gives up.

        `site` is opened for each round: what runs may have become a container since the last one.
        """
        try:
            return self._round(site)
        except DeploymentBusyError:
            return True  # an `up` or a `down` is at work
        except (EnvironmentUnfitError, IntegrityError) as error:  # guard: F34
            self._mark("degraded", error.message)  # docker is away, or a disk: nothing that a restart mends
            return True

    def _round(self, site: Site) -> bool:
        if not self._deployment.folder.is_dir():
            return False  # purged
        release = _current(site)
        launch = release.recorded_launch()
        if launch.state in ("stopped", "starting"):
            problem, sure = None, True
        else:
            problem, sure = self._problem(site, release, launch)
            if problem is None:
                self._failures = 0
                self._mark("healthy")
                return True
            self._failures += 1
        if not sure and self._failures < PATIENCE:
            self._mark("degraded", problem)
            return True
        with held(self._deployment, verb="watch"):
            if site.releases.current() != release or release.recorded_launch() != launch:
                return True  # another verb has been at work since it was looked at
            return self._act(site, release, launch, problem)

    def _act(self, site: Site, release: Release, launch: Launch, problem: str | None) -> bool:
        """What nobody but us can be doing now; whether there is still something to watch."""
        if launch.state == "stopped":
            # By a `down`, or to make room for a release whose `up` was killed: then the next `up` is waited for.
            if not any(map(_is_starting, site.releases.all())):
                return False
            self._mark("degraded", "an `up` was interrupted: run it again")
            return True
        if problem is None and observe(site.runtimes).state in ("missing", "exited"):
            problem = "its start was interrupted"
        if problem is None:
            self._mark("starting")
            try:
                follow_up(site, release)
            except DeployError as error:
                self._fail(release, error)
        else:
            self._restart(site, release, problem)
        return True

    def _problem(self, site: Site, release: Release, launch: Launch) -> tuple[str | None, bool]:
        """What is wrong, or nothing; and whether that is sure at the first look."""
        decision = decide(release.plan_hash, observe(site.runtimes), launch)
        if decision.action != "nothing":
            return decision.cause, True
        found = self._canary(release)
        return (None, True) if found.answered else (found.detail, found.final)  # guard: F27

    def _restart(self, site: Site, release: Release, reason: str) -> None:
        self._mark("degraded", reason)
        self._give_up_in_time(reason)
        _keep_evidence(site, release, reason)
        self._say(f"restart  {release.plan_hash}: {reason}")
        self._add(
            Restart(at=_now(), reason=reason, outcome="interrupted", boot=boot_id(), monotonic_s=_monotonic())
        )
        try:
            bring_up(site, release, relaunch(release))
        except DeployError as error:
            self._end(error.message)
            self._fail(release, error)
            return
        self._failures = 0
        self._end("ready")
        self._mark("healthy")

    def _fail(self, release: Release, error: DeployError) -> None:
        # Stopped by nobody but us: it must not pass for one that a `down` has stopped.
        with contextlib.suppress(EnvironmentUnfitError, IntegrityError):
            launch = release.recorded_launch()
            if launch.state == "stopped":
                release.record(launch.model_copy(update={"state": "failed", "reason": error.message}))
        self._mark("degraded", error.message)
        self._say(f"failed   {error.message}")

    def _give_up_in_time(self, reason: str) -> None:
        """Raises StartFailedError when there were as many restarts lately as there may be."""
        now, boot = _monotonic(), boot_id()
        recent = [
            one for one in self._record.restarts if one.boot == boot and now - one.monotonic_s < WINDOW_S
        ]
        if len(recent) < MAX_RESTARTS:
            return
        self._mark("given up", reason)
        raise StartFailedError(
            f"restarted {len(recent)} times within an hour, and again: {reason}",
            hint=f"deckard-deploy status --name {self._deployment.name}, and deckard-deploy logs",
        )

    def _mark(self, state: State, reason: str | None = None) -> None:
        if (state, reason) == (self._record.state, self._record.reason):
            return
        if state != self._record.state:
            self._say(f"{state:8} {reason or self._deployment.name}")
        self._record = self._record.model_copy(update={"state": state, "reason": reason, "since": _now()})
        self._write()

    def _add(self, restart: Restart) -> None:
        restarts = (*self._record.restarts, restart)[-KEPT:]
        self._record = self._record.model_copy(update={"restarts": restarts})
        self._write()

    def _end(self, outcome: str) -> None:
        *earlier, last = self._record.restarts
        ended = last.model_copy(update={"outcome": outcome})
        self._record = self._record.model_copy(update={"restarts": (*earlier, ended)})
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(EnvironmentUnfitError):  # a full disk must not end the watch
            write_atomically(self._deployment.watch, self._record.model_dump_json(indent=1) + "\n")


def _current(site: Site) -> Release:
    release = site.releases.current()
    if release is None:
        raise BadInputError(
            f"{site.releases.deployment.name} was never ready: there is nothing to watch",
            hint="deckard-deploy up",
        )
    return release


def _is_starting(release: Release) -> bool:
    with contextlib.suppress(IntegrityError):  # of a release that was left long ago, as `down` takes it
        launch = release.launch()
        return launch is not None and launch.state == "starting"
    return False


def _keep_evidence(site: Site, release: Release, reason: str) -> None:
    lines = site.runtimes[release.recorded_launch().runtime].tail(FAILURE_LINES)
    if not lines:
        return  # a start that failed has left its own
    with contextlib.suppress(EnvironmentUnfitError):  # a full disk must not keep a server down
        write_atomically(release.folder / FAILURE_LOG, "\n".join([reason, *lines]) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat("T", "seconds")


def _monotonic() -> float:
    return time.monotonic()  # of the machine since it was started, the same for every process
