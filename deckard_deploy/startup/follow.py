"""Follow one start to its end: ready, failed, or stuck.

Log lines, the instance's state and the readiness probe are looked at every POLL_S; connecting to a port on which
nothing listens costs next to nothing, so a ready engine is noticed within a poll, whatever it logs.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from deckard_deploy.errors import StartFailedError, TimedOutError
from deckard_deploy.startup.diagnosis import UNKNOWN, Diagnosis, diagnose
from deckard_deploy.startup.observation import Observation
from deckard_deploy.startup.phases import Facts, Phase, PhaseTracker, Progress
from deckard_deploy.startup.readiness import Outcome, Readiness

POLL_S = 0.1
LAST_WORDS_POLLS = 10  # of POLL_S, for log lines that arrive after the exit was seen
KEPT_HEAD, KEPT_TAIL = 2000, 2000  # lines kept for the diagnosis


class Launch(Protocol):
    """The started instance, as its runtime shows it. Neither method blocks for long."""

    def poll_lines(self) -> list[str]:
        """Log lines that arrived since the last call, oldest first; empty when there are none."""

    def observe(self) -> Observation:
        """How it is now."""


@dataclass(frozen=True)
class Clock:
    """Seconds, and waiting for them; tests bring their own."""

    now: Callable[[], float] = time.monotonic
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
    raise NotImplementedError
