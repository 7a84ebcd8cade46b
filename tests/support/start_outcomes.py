"""One case of the truth table: a behaviour, a seed, and the verdict of `follow` with the real probe.

A start's clock runs fifty times faster, so that ten questions a second apart take a fifth of one. Not where
something
crashes: how soon that is said is what is measured there.
"""

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from random import Random

import requests

from deckard_deploy.errors import StartFailedError, TimedOutError
from deckard_deploy.startup import readiness
from deckard_deploy.startup.follow import Clock, follow
from tests.support.misbehaving_server import Misbehaving, misbehaving
from tests.support.server_behaviours import BEHAVIOURS, LAUNCH, SERVED, Behaviour, FakeObservation, Verdict

SPEED = 50
FAST = Clock(now=lambda: time.monotonic() * SPEED, sleep=lambda seconds: time.sleep(seconds / SPEED))
STALLED_AFTER_S = 300.0  # of that clock; longer than ten questions that are never answered
TIMEOUT_S, REAL_TIMEOUT_S = 0.1, 120.0
AT_ONCE = 16


@dataclass(frozen=True)
class StartOutcome:
    """The verdict of one case, and its seconds after the runtime's last turn."""

    behaviour: Behaviour
    seed: int
    verdict: Verdict
    said: str
    after_s: float

    @property
    def true(self) -> bool:
        return self.verdict == self.behaviour.verdict


class Life:
    """A scripted launch: its observations by the second."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._began = time.monotonic()
        self._turns = {self._began + at: seen for at, seen in behaviour.turns.items()}

    @property
    def last(self) -> float:
        return max(self._turns, default=self._began)

    def poll_lines(self) -> list[str]:
        return []

    def tail_gateway(self, _: int) -> list[str]:
        return []

    def observe(self) -> FakeObservation:
        now = time.monotonic()
        return next(
            (seen for at, seen in sorted(self._turns.items(), reverse=True) if at <= now), FakeObservation()
        )


def case(behaviour: Behaviour, seed: int) -> StartOutcome:
    random = Random(f"{behaviour.name} {seed}")
    loads_s = random.uniform(0, 0.3) if behaviour.listens and not behaviour.turns else 0.0
    with misbehaving(
        behaviour.answering(random), random, listens_after_s=loads_s if behaviour.listens else 60
    ) as server:
        timeout_s = REAL_TIMEOUT_S if behaviour.turns else TIMEOUT_S
        probe = functools.partial(
            readiness.probe, server.url, launch_id=LAUNCH, served_name=SERVED, timeout_s=timeout_s
        )
        life = Life(behaviour)
        verdict, said = _followed(life, probe, Clock() if behaviour.turns else FAST)
        return StartOutcome(behaviour, seed, verdict, said, time.monotonic() - life.last)


def _followed(life: Life, probe: Callable[[], readiness.Readiness], clock: Clock) -> tuple[Verdict, str]:
    try:
        follow(life, probe, stalled_after_s=STALLED_AFTER_S, on_progress=lambda _: None, clock=clock)
    except StartFailedError as error:
        return "failed", str(error)
    except TimedOutError as error:
        return "stalled", str(error)
    return "ready", ""


def table(seeds: Iterable[int]) -> list[StartOutcome]:
    with ThreadPool(AT_ONCE) as pool:
        return pool.starmap(
            case, [(behaviour, seed) for seed in seeds for behaviour in BEHAVIOURS], chunksize=1
        )


def ready_by(believed: Callable[[Misbehaving], bool], behaviour: Behaviour, seed: int) -> bool:
    """Return True if a simpler probe would report a listening server as ready."""
    random = Random(f"{behaviour.name} {seed}")
    with misbehaving(behaviour.answering(random), random) as server:
        time.sleep(0.02)
        return believed(server)


def healthy(server: Misbehaving) -> bool:
    """Return True if `/health` answers 200, which is the probe of a compose healthcheck."""
    return bool(
        requests.get(server.url.replace("/v1", "/health"), timeout=5).status_code == requests.codes.ok
    )


def lists_the_model(server: Misbehaving) -> bool:
    """Return True if `/v1/models` names the served model; checks no launch and no completion."""
    found = requests.get(f"{server.url}/models", timeout=5).json()
    return bool(SERVED in [model["id"] for model in found["data"]])
