"""Watch over a deployment: a canary at intervals, and a bounded number of restarts, each with its reason.

watch.json in the deployment's folder is the record. Waits and bounds use the monotonic clock, which a change
of the date does not move; dates are for readers.
"""

import contextlib
import os
import time
from collections import deque
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
    DeploymentContext,
    decide,
    deploy,
    failure_log,
    observe,
    relaunch,
    restore_gateway,
    resume,
)
from deckard_deploy.running.layout import DeploymentDir
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import FAILURE_LOG, Launch, Release, ReleaseFolder
from deckard_deploy.system.files import read_regular, translating_write_errors, try_write
from deckard_deploy.system.processes import ProcessIdentity, boot_id, identity_of, is_alive

PATIENCE, REMEMBERED = 3, 6  # failed canaries among the last six before a running server is restarted
MAX_RESTARTS, WINDOW_S = 2, 3600.0
MAX_RECORDED = 20  # restarts in the record
WatchState: TypeAlias = Literal["starting", "healthy", "degraded", "given up"]
Health: TypeAlias = Literal["answers", "silent", "dead"]
Cure: TypeAlias = Literal["restart", "follow", "gateway", "stop", "none"]
DRAIN_S = 5.0  # for requests in flight, when the engine has to be stopped before the machine freezes


class Restart(BaseModel):
    """One restart by the watch, or one that it has seen. outcome: `ready`, or the error.

    counted: towards the bound of restarts; not what a restart of the docker daemon has caused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    reason: str
    outcome: str
    boot: str
    monotonic_s: float  # CLOCK_MONOTONIC of Linux: since boot, the same for every process
    counted: bool = True


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
    """The result of one question to a running server.

    final: another question cannot have another result. cure: what helps if there is no answer.
    """

    answered: bool
    detail: str
    final: bool = False
    cure: Cure = "restart"


@dataclass(frozen=True)
class Problem:
    """What is wrong with the deployment, and what mends it. certain: one check is enough to be sure of it."""

    reason: str
    cure: Cure
    certain: bool = True


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
    """The watch over the current release.

    canary: asks the server. say: receives a line of progress. daemon_ended: returns True if the docker daemon has
    ended since the last call. on_health: is called when the engine has answered, and when it has not, before it is
    restarted: `dead` is certain, `silent` is one question without an answer.
    """

    def __init__(
        self,
        deployment: DeploymentDir,
        *,
        canary: Callable[[Release], Canary],
        say: Callable[[str], None],
        daemon_ended: Callable[[DeploymentContext], bool] = lambda _: False,
        on_health: Callable[[Health], None] = lambda _: None,
    ) -> None:
        self._deployment = deployment
        self._canary = canary
        self._say = say
        self._daemon_ended = daemon_ended
        self._on_health = on_health
        self._interrupted = False  # the docker daemon has ended, and the deployment was not healthy since
        self._failures: deque[bool] = deque(maxlen=REMEMBERED)
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
            self._say(f"start    {release.plan_hash}: nothing is running")
            try:
                with lock_deployment(self._deployment, verb="watch"):
                    deploy(site, release, relaunch(release))
            except DeploymentBusyError:
                return False
            except DeployError as error:
                self._start_failed(release, error)
                return True
            self._on_health("answers")
        self._set_state("healthy")
        return True

    def check(self, site: DeploymentContext) -> bool:
        """Check the deployment once. Return False if there is nothing left to watch.

        site: opened anew for each round, because the runtime may have changed since the last one.
        Raises StartFailedError when the watch gives up.
        """
        try:
            self._notice_daemon(site)
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
            problem = self._noted(self._problem(site, release, launch))
            if problem is None:
                self._interrupted = False
                self._set_state("healthy")
                return True
            if problem.cure == "none" or (not problem.certain and sum(self._failures) < PATIENCE):
                self._set_state("degraded", problem.reason)
                return True
        with lock_deployment(self._deployment, verb="watch"):
            if site.releases.current() != release or release.recorded_launch() != launch:
                return True  # another verb has changed the deployment since the check
            return self._act(site, release, launch, problem)

    def _noted(self, problem: Problem | None) -> Problem | None:
        """Count the result of one check, and report whether the engine answers."""
        self._failures.append(problem is not None and problem.cure == "restart")
        if problem is None:
            self._on_health("answers")
        elif problem.cure in ("restart", "follow", "stop"):
            self._on_health("dead" if problem.certain else "silent")
        return problem

    def _act(
        self, site: DeploymentContext, release: ReleaseFolder, launch: Launch, problem: Problem | None
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
            problem = Problem("its start was interrupted", "restart")
        if problem is None:
            self._set_state("starting")
            try:
                resume(site, release)
            except DeployError as error:
                self._start_failed(release, error)
        elif problem.cure == "gateway":
            self._restart_gateway(site, release, problem.reason)
        elif problem.cure == "stop":
            self._stop(site, release, problem.reason)
        else:
            self._restart(site, release, problem)
        return True

    def _problem(self, site: DeploymentContext, release: ReleaseFolder, launch: Launch) -> Problem | None:
        """Return the problem, None if there is none."""
        decision = decide(release.plan_hash, observe(site.runtimes), launch)
        if decision.action in ("follow", "gateway"):
            return Problem(decision.cause, decision.action)
        if decision.action != "nothing" and not decision.unless_answers:
            return Problem(decision.cause, "restart")
        found = self._canary(release.load())
        if found.answered:  # guard: F27
            return Problem(decision.cause, "follow") if decision.unless_answers else None
        return Problem(found.detail, found.cure, certain=found.final)

    def _restart(self, site: DeploymentContext, release: ReleaseFolder, problem: Problem) -> None:
        """Restart the engine, or follow one that docker or its supervisor has restarted already."""
        reason = problem.reason
        self._set_state("degraded", reason)
        counted = not self._interrupted  # guard: F63
        if counted:
            self._require_restart_allowed(reason)
        _keep_log(site, release, reason)
        self._say(f"{problem.cure:8} {release.plan_hash}: {reason}")
        self._add_restart(
            Restart(
                at=_now(),
                reason=reason if counted else f"the docker daemon was restarted; {reason}",
                outcome="interrupted",
                boot=boot_id(),
                monotonic_s=time.monotonic(),
                counted=counted,
            )
        )
        try:
            if problem.cure == "follow":
                resume(site, release)
            else:
                deploy(site, release, relaunch(release))
        except DeployError as error:
            self._notice_daemon(site)
            self._set_outcome(error.message, counted=not self._interrupted)
            self._start_failed(release, error)
            return
        self._failures.clear()
        self._interrupted = False
        self._set_outcome("ready", counted=counted)
        self._set_state("healthy")
        self._on_health("answers")

    def _restart_gateway(self, site: DeploymentContext, release: ReleaseFolder, reason: str) -> None:
        """Start the gateway again. The engine behind it is left alone, whatever becomes of the gateway."""
        self._set_state("degraded", reason)
        self._say(f"gateway  {reason}: it is started again, the engine runs on")
        try:
            restore_gateway(site, release)
        except StartFailedError as error:
            self._set_state("degraded", error.message)

    def _stop(self, site: DeploymentContext, release: ReleaseFolder, reason: str) -> None:
        """Drain and stop the engine. Raises StartFailedError: a start would only repeat it."""
        self._say(f"stop     {release.plan_hash}: {reason}")
        launch = release.recorded_launch()
        runtime = site.runtimes[launch.runtime]
        runtime.drain()
        time.sleep(DRAIN_S)
        _keep_log(site, release, reason)
        for each in site.runtimes.values():
            each.stop()
        release.try_record(launch.model_copy(update={"state": "failed", "reason": reason}))
        self._set_state("given up", reason)
        raise StartFailedError(
            f"the engine is stopped: {reason}",
            hint=f"end what else takes memory, then: deckard-deploy up --name {self._deployment.name} "
            "with a smaller gpu-memory-utilization",
        )

    def _notice_daemon(self, site: DeploymentContext) -> None:
        """Note a restart of the docker daemon, which ends containers that are not at fault."""
        if self._daemon_ended(site):
            self._interrupted = True

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
            if restart.counted and restart.boot == boot and now - restart.monotonic_s < WINDOW_S:
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

    def _set_outcome(self, outcome: str, *, counted: bool) -> None:
        *earlier, last = self._record.restarts
        ended = last.model_copy(update={"outcome": outcome, "counted": counted})
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
    runtime = site.runtimes[release.recorded_launch().runtime]
    if not runtime.tail(1):
        return  # a failed start has already kept its own log
    # A full disk must not prevent the restart.
    try_write(release.folder / FAILURE_LOG, failure_log(runtime, reason))


def _now() -> str:
    return datetime.now(UTC).isoformat("T", "seconds")
