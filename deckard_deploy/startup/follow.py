"""Follow one start to its end: ready, failed, or stuck.

Log lines, the instance's state and the readiness probe are looked at every POLL_S; connecting to a port on which
nothing listens costs next to nothing, so a ready engine is noticed within a poll, whatever it logs. While a question
is under way, which may take minutes, the other two are looked at all the same.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from deckard_deploy.errors import StartFailedError, TimedOutError
from deckard_deploy.startup.background_call import Asking
from deckard_deploy.startup.diagnosis import UNKNOWN, Diagnosis, diagnose
from deckard_deploy.startup.observation import Observation
from deckard_deploy.startup.phases import Facts, Phase, PhaseTracker, Progress
from deckard_deploy.startup.readiness import Outcome, Readiness

POLL_S = 0.1
UNANSWERED_S = 1.0  # between questions to a server that listens and gives no usable answer
UNANSWERED = 10  # such questions in a row, and it never will
LAST_WORDS_POLLS = 10  # of POLL_S each: log lines may arrive after the exit that they explain
KEPT = 3000  # first and last lines kept for the diagnosis
HINTS = {
    Outcome.OTHER_SERVER: "another server has the port; stop it, or choose another: --set publish.port=PORT",
    Outcome.KEY_REFUSED: "the server wants another API key than this launch was given; deckard-deploy down, then up",
    Outcome.CANNOT_CHAT: "it refuses a plain question; deckard-deploy verify, and deckard-deploy logs",
    Outcome.NOT_ANSWERING: "it answers a plain question with nothing; deckard-deploy verify, and deckard-deploy logs",
}


class Launch(Protocol):
    """The started instance, as its runtime shows it. Neither method blocks for long."""

    def poll_lines(self) -> list[str]:
        """Log lines that arrived since the last call, oldest first; empty when there are none."""

    def observe(self) -> Observation:
        """How it is now."""


@dataclass(frozen=True)
class Clock:
    """Seconds, and waiting for them; tests bring their own."""

    now: Callable[[], float] = time.monotonic  # guard: F46
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Ready:
    """A start that ended well: seconds in all and per phase, and what the engine said about itself."""

    elapsed_s: float
    durations: Mapping[Phase, float]
    facts: Facts


def follow(
    launch: Launch,
    probe: Callable[[], Readiness],
    *,
    stalled_after_s: float,
    on_progress: Callable[[Progress], None],
    clock: Clock = Clock(),
) -> Ready:
    """Wait until `probe` finds the launch ready.

    `stalled_after_s`: so long without progress and the start has failed; progress is a log line that phases.yaml
    knows. Raises StartFailedError as soon as the instance exits, restarts, is replaced or vanishes, or the probe's
    outcome is final; TimedOutError when the start stalls. Both carry the diagnosis in message and hint.
    """
    started = advanced = clock.now()
    log = _Log(launch, PhaseTracker(started), on_progress)
    first, unanswered = launch.observe(), 0
    asking: Asking[Readiness] | None = None
    while True:
        now = clock.now()
        if log.read(now):
            advanced = now  # guard: F31
        if ended := _ended(first, observation := launch.observe()):
            for _ in range(LAST_WORDS_POLLS):
                clock.sleep(POLL_S)
                log.read(now)
            _fail(log, ended, now - started, observation)
        asking = asking or Asking(probe)
        if (readiness := asking.answer(POLL_S)) is None:
            continue
        asking = None
        if readiness.outcome is Outcome.READY and not _ended(first, launch.observe()):
            now = clock.now()
            log.read(now)
            return Ready(now - started, log.tracker.durations(now), log.tracker.facts)
        unanswered = unanswered + 1 if readiness.outcome is Outcome.NOT_ANSWERING else 0
        if readiness.final or unanswered == UNANSWERED:
            _refuse(log, readiness, now - started, observation)
        if now - advanced >= stalled_after_s:
            _time_out(log, readiness, stalled_after_s)
        clock.sleep(UNANSWERED_S if unanswered else POLL_S)


@dataclass
class _Log:
    """The lines so far: the first, where root causes stand, and the last."""

    launch: Launch
    tracker: PhaseTracker
    on_progress: Callable[[Progress], None]
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))

    def read(self, now: float) -> bool:
        """Take in what arrived; whether the start advanced."""
        advanced = False
        for line in self.launch.poll_lines():
            (self.head if len(self.head) < KEPT else self.tail).append(line)
            shown = self.tracker.progress
            if progress := self.tracker.feed(line, now):
                advanced = True
                if progress != shown:
                    self.on_progress(progress)
        return advanced

    def diagnose(self, observation: Observation | None) -> Diagnosis:
        return diagnose([*self.head, *self.tail], phase=self.tracker.progress.phase, observation=observation)


def _ended(first: Observation, now: Observation) -> str:
    """Why the start is over, or nothing while it goes on."""
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
        f'start failed in "{found.phase}" after {_clock_face(elapsed_s)}: {ended}{line}',
        hint=f"{found.cause}; {found.fix}",
    )


def _refuse(log: _Log, readiness: Readiness, elapsed_s: float, observation: Observation) -> NoReturn:
    if hint := HINTS.get(readiness.outcome):
        raise StartFailedError(
            f"{readiness.outcome} after {_clock_face(elapsed_s)}: {readiness.detail}", hint=hint
        )
    _fail(log, f"{readiness.outcome}: {readiness.detail}", elapsed_s, observation)


def _clock_face(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def _time_out(log: _Log, readiness: Readiness, stalled_after_s: float) -> NoReturn:
    found = log.diagnose(None)
    hint = f"raise startup_timeout_s if this machine is slow; {found.fix}"
    raise TimedOutError(
        f'no progress in "{found.phase}" for {stalled_after_s:g} s ({readiness.outcome}: {readiness.detail})',
        hint=hint if found.signature == UNKNOWN else f"{found.cause}; {found.fix}",
    )
