"""Follow one start to its end: ready, failed, or stalled.

Log lines, the state of the instance and the readiness probe are checked every POLL_S. A connection to a port
on which nothing listens costs next to nothing, so a ready engine is noticed within one poll, also without a
log line. A running probe may take minutes; the other two are checked meanwhile.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from deckard_deploy.errors import StartFailedError, TimedOutError
from deckard_deploy.startup.background_call import BackgroundCall
from deckard_deploy.startup.diagnosis import Diagnosis, diagnose
from deckard_deploy.startup.observation import Observation
from deckard_deploy.startup.phases import Facts, Phase, PhaseTracker, Progress
from deckard_deploy.startup.readiness import REFUSES, Outcome, Readiness

POLL_S = 0.1
RETRY_S = 1.0  # between probes of a server that listens but gives no usable answer
MAX_UNANSWERED = 10  # such probes in a row; then the start has failed
POLLS_AFTER_EXIT = 10  # of POLL_S each: log lines may arrive after the exit that they explain
GATEWAY_LINES = 20  # of the gateway's log, in which nginx names the reason of its end
KEPT = 3000  # lines from the beginning, and lines from the end, that are kept for the diagnosis
HINTS = {
    Outcome.OTHER_SERVER: "another server has the port; stop it, or choose another: --set publish.port=PORT",
    Outcome.KEY_REFUSED: (
        "the server wants another API key than this launch was given; deckard-deploy down, then: deckard-deploy up"
    ),
    **dict.fromkeys(
        REFUSES, "it refuses a plain question; deckard-deploy verify, and deckard-deploy logs --failed"
    ),
    Outcome.NOT_ANSWERING: (
        "it answers a plain question with nothing; deckard-deploy verify, and deckard-deploy logs --failed"
    ),
}
# Outcomes whose cause the engine's log may name.
LOGGED = REFUSES | {Outcome.NOT_ANSWERING}


class StartedEngine(Protocol):
    """The started instance, as its runtime shows it. Neither method blocks for long."""

    def poll_lines(self) -> list[str]:
        """Return the log lines that arrived since the last call, oldest first."""

    def observe(self) -> Observation:
        """Return its current state."""

    def tail_gateway(self, count: int) -> list[str]:
        """Return the last lines of the log of the proxy in front of it."""


@dataclass(frozen=True)
class Clock:
    """The time in seconds, and a way to wait; tests pass their own."""

    now: Callable[[], float] = time.monotonic  # guard: F46
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Ready:
    """A start that succeeded: its seconds in all and per phase, and the facts that the engine logged."""

    elapsed_s: float
    durations: Mapping[Phase, float]
    facts: Facts


def follow(
    launch: StartedEngine,
    probe: Callable[[], Readiness],
    *,
    stalled_after_s: float,
    on_progress: Callable[[Progress], None],
    clock: Clock = Clock(),
) -> Ready:
    """Wait until `probe` finds the launch ready.

    stalled_after_s: the start has failed after so long without progress. Progress is a log line that matches
    phases.yaml.

    Raises StartFailedError as soon as the instance exits, restarts, is replaced or vanishes, or the probe's
    outcome is final; TimedOutError when the start stalls. Both carry the diagnosis in message and hint.
    """
    started = advanced = clock.now()
    log = _Log(launch, PhaseTracker(started), on_progress)
    probes = _Probes(probe)
    first = launch.observe()
    while True:
        now = clock.now()
        if log.read(now):
            advanced = now  # guard: F31
        observation = launch.observe()
        ended = _ended(first, observation)
        if ended:
            log.read_to_end(clock, now)
            _fail(log, ended, now - started, observation)
        _require_gateway(launch, observation, now - started)
        readiness = probes.answer()
        if readiness is None:
            continue
        if readiness.outcome is Outcome.READY and not _ended(first, launch.observe()):
            now = clock.now()
            log.read(now)
            return Ready(now - started, log.tracker.durations(now), log.tracker.facts)
        if readiness.final or probes.unanswered == MAX_UNANSWERED:
            log.read_to_end(clock, now)  # the engine's own words about the request
            _refuse(log, readiness, now - started, observation)
        if now - advanced >= stalled_after_s:
            _time_out(log, readiness, stalled_after_s)
        clock.sleep(probes.pause_s)


class _Probes:
    """Probes, one after the other. unanswered: those in a row without a usable answer."""

    def __init__(self, probe: Callable[[], Readiness]) -> None:
        self.unanswered = 0
        self._probe = probe
        self._call: BackgroundCall[Readiness] | None = None

    @property
    def pause_s(self) -> float:
        """The pause before the next probe."""
        return RETRY_S if self.unanswered else POLL_S

    def answer(self) -> Readiness | None:
        """Wait for one poll. Return the result of the running probe, None while there is none."""
        if self._call is None:
            self._call = BackgroundCall(self._probe)
        readiness = self._call.answer(POLL_S)
        if readiness is None:
            return None
        self._call = None
        if readiness.outcome is Outcome.NOT_ANSWERING:
            self.unanswered += 1
        else:
            self.unanswered = 0
        return readiness


@dataclass
class _Log:
    """The lines so far: the first, where root causes stand, and the last."""

    launch: StartedEngine
    tracker: PhaseTracker
    on_progress: Callable[[Progress], None]
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))

    def read(self, now: float) -> bool:
        """Read the new lines. Return True if the start advanced."""
        advanced = False
        for line in self.launch.poll_lines():
            self._keep(line)
            before = self.tracker.progress
            progress = self.tracker.feed(line, now)
            if progress:
                advanced = True
                if progress != before:
                    self.on_progress(progress)
        return advanced

    def read_to_end(self, clock: Clock, now: float) -> None:
        """Read the lines that arrive after an exit."""
        for _ in range(POLLS_AFTER_EXIT):
            clock.sleep(POLL_S)
            self.read(now)

    def diagnose(self, observation: Observation | None, *, stalled: bool = False) -> Diagnosis:
        lines = [*self.head, *self.tail]
        phase = self.tracker.progress.phase
        return diagnose(lines, phase=phase, observation=observation, stalled=stalled)

    def _keep(self, line: str) -> None:
        if len(self.head) < KEPT:
            self.head.append(line)
        else:
            self.tail.append(line)


def _ended(first: Observation, now: Observation) -> str:
    """Return why the start is over; an empty string while it goes on."""
    if now.state == "missing":
        return "the engine is gone"
    if now.state == "exited":  # guard: F23
        return f"the engine exited with code {now.exit_code}"
    if now.state == "restarting" or now.restart_count > first.restart_count:  # guard: F22
        return f"the engine crashed and was restarted (restart {now.restart_count})"
    if now.instance_id != first.instance_id:
        return "another instance took the engine's place"
    return ""


def _fail(log: _Log, ended: str, elapsed_s: float, observation: Observation | None) -> NoReturn:
    found = log.diagnose(observation)
    line = f": {found.first_fatal_line}" if found.first_fatal_line else ""
    raise StartFailedError(
        f'start failed in "{found.phase}" after {_minutes(elapsed_s)}: {ended}{line}',
        hint=f"{found.cause}; {found.fix}",
    )


def _require_gateway(launch: StartedEngine, observation: Observation, elapsed_s: float) -> None:
    """Raise StartFailedError for a gateway that has ended: the engine is not the cause, nor does its log tell it."""
    if observation.gateway not in ("exited", "missing"):
        return
    ended = f"exited with code {observation.gateway_exit_code}"
    if observation.gateway == "missing":
        ended = "is gone"
    lines = launch.tail_gateway(GATEWAY_LINES)
    said = next((line for line in reversed(lines) if "[emerg]" in line), lines[-1] if lines else "")
    raise StartFailedError(
        f"start failed after {_minutes(elapsed_s)}: the gateway {ended}{': ' if said else ''}{said}",
        hint="deckard-deploy logs",
    )


def _refuse(log: _Log, readiness: Readiness, elapsed_s: float, observation: Observation) -> NoReturn:
    hint = HINTS.get(readiness.outcome)
    if hint is None:
        _fail(log, f"{readiness.outcome}: {readiness.detail}", elapsed_s, observation)
    message = f"{readiness.outcome} after {_minutes(elapsed_s)}: {readiness.detail}"
    if readiness.outcome in LOGGED:
        found = log.diagnose(None, stalled=True)
        if found.known:
            message += f": {found.first_fatal_line}"
            hint = f"{found.cause}; {found.fix}"
    raise StartFailedError(message, hint=hint)


def _minutes(seconds: float) -> str:
    """Return `minutes:seconds`."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def _time_out(log: _Log, readiness: Readiness, stalled_after_s: float) -> NoReturn:
    found = log.diagnose(None, stalled=True)
    hint = f"{found.cause}; {found.fix}"
    if not found.known:
        hint = f"raise startup_timeout_s if this machine is slow; {found.fix}"
    raise TimedOutError(
        f'no progress in "{found.phase}" for {stalled_after_s:g} s ({readiness.outcome}: {readiness.detail})',
        hint=hint,
    )
