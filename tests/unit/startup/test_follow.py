"""The loop, with a scripted launch and a clock that only moves when the loop sleeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import pytest

from deckard_deploy.errors import StartFailedError, TimedOutError
from deckard_deploy.startup.follow import POLL_S, Clock, Ready, follow
from deckard_deploy.startup.phases import Phase, Progress
from deckard_deploy.startup.readiness import Outcome, Readiness
from tests.support.server_behaviours import FakeObservation

Turn = TypeVar("Turn")
OUT_OF_MEMORY = (
    "(EngineCore pid=7) ERROR 11-23 12:00:00 [core.py:1108] ValueError: No available memory for the cache blocks. "
    "Try increasing `gpu_memory_utilization` when initializing the engine."
)


@dataclass
class Life:
    """A scripted launch: its log lines, observations and probe outcomes by the second."""

    lines: Mapping[float, str] = field(default_factory=dict)
    turns: Mapping[float, FakeObservation] = field(default_factory=dict)
    outcomes: Mapping[float, Readiness] = field(default_factory=dict)
    gateway_lines: tuple[str, ...] = ()
    now: float = 1000.0
    told: float = 0.0
    progress: list[Progress] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def age(self) -> float:
        return self.now - 1000.0

    def poll_lines(self) -> list[str]:
        due = [line for at, line in self.lines.items() if self.told <= at < self.age + 1e-9]
        self.told = self.age + 1e-9
        return due

    def tail_gateway(self, count: int) -> list[str]:
        return list(self.gateway_lines[-count:])

    def observe(self) -> FakeObservation:
        return self._latest(self.turns, FakeObservation())

    def probe(self) -> Readiness:
        return self._latest(self.outcomes, Readiness(Outcome.LOADING, "refused"))

    def _latest(self, turns: Mapping[float, Turn], default: Turn) -> Turn:
        return next((turn for at, turn in reversed(list(turns.items())) if at <= self.age + 1e-9), default)

    def follow(self, stalled_after_s: float = 60) -> Ready:
        clock = Clock(now=lambda: self.now, sleep=self.sleep)
        return follow(
            self, self.probe, stalled_after_s=stalled_after_s, on_progress=self.progress.append, clock=clock
        )


READY = Readiness(Outcome.READY)


def test_follow_reports_phases_until_ready():
    life = Life(
        lines={
            1: "(APIServer pid=1) INFO 11-23 12:00:01 [model.py:549] Resolved architecture: Gemma4ForCausalLM",
            4: "(EngineCore pid=7) INFO 11-23 12:00:04 [gpu_model_runner.py:4735] Starting to load model /models/d...",
            8: "(EngineCore pid=7) Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:04<00:04,  4s/it]",
            20: "(EngineCore pid=7) INFO 11-23 12:00:20 [kv_cache_utils.py:1319] GPU KV cache size: 612,480 tokens",
        },
        outcomes={25: READY},
    )
    ready = life.follow()
    assert [(shown.phase, shown.percent) for shown in life.progress] == [
        (Phase.IMPORTS, None),
        (Phase.WEIGHTS, None),
        (Phase.WEIGHTS, 50.0),
        (Phase.KV_CACHE, None),
    ]
    assert ready.facts.kv_cache_tokens == 612_480
    assert ready.elapsed_s == pytest.approx(25, abs=2 * POLL_S)
    assert ready.durations[Phase.WEIGHTS] == pytest.approx(16, abs=2 * POLL_S)
    assert sum(ready.durations.values()) == pytest.approx(ready.elapsed_s)


def test_unchanged_progress_is_reported_once():
    line = "INFO 11-23 12:00:00 [model.py:549] Resolved architecture: Gemma4ForCausalLM"
    life = Life(lines={1: line, 2: line, 3: line}, outcomes={4: READY})
    life.follow()
    assert [shown.phase for shown in life.progress] == [Phase.IMPORTS]


def test_readiness_is_noticed_within_half_a_second():
    life = Life(outcomes={7.03: READY})
    assert 7.03 <= life.follow().elapsed_s <= 7.53


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (FakeObservation(state="exited", exit_code=1), "exited with code 1"),
        (FakeObservation(state="missing"), "gone"),
        (FakeObservation(state="restarting", exit_code=1, restart_count=1), "restarted"),
        (FakeObservation(restart_count=1), "crashed and was restarted"),
        (FakeObservation(instance_id="decaf"), "another instance"),
    ],
)
def test_end_of_instance_fails_the_start(turn: FakeObservation, said: str):
    life = Life(lines={5: OUT_OF_MEMORY}, turns={5: turn}, outcomes={60: READY})
    with pytest.raises(StartFailedError, match=said) as failed:
        life.follow()
    assert life.age < 10
    assert "No available memory for the cache blocks" in failed.value.message
    assert "gpu-memory-utilization" in failed.value.hint
    assert "\n" not in failed.value.message + failed.value.hint


def test_earlier_restarts_do_not_fail_the_start():
    life = Life(turns={0: FakeObservation(restart_count=2)}, outcomes={3: READY})
    assert life.follow().elapsed_s == pytest.approx(3, abs=2 * POLL_S)


def test_cause_logged_after_exit_is_found():
    life = Life(lines={5.5: OUT_OF_MEMORY}, turns={5: FakeObservation(state="exited", exit_code=1)})
    with pytest.raises(StartFailedError, match="No available memory"):
        life.follow()


@pytest.mark.parametrize(
    ("outcome", "hint"),
    [
        (Outcome.OTHER_SERVER, "publish.port"),
        (Outcome.KEY_REFUSED, "API key"),
        (Outcome.CANNOT_CHAT, "verify"),
        (Outcome.ENGINE_DEAD, "logs"),
    ],
)
def test_final_outcome_fails_the_start(outcome: Outcome, hint: str):
    life = Life(outcomes={2: Readiness(outcome, "GET /v1/models said so"), 3: READY})
    with pytest.raises(StartFailedError, match="GET /v1/models said so") as failed:
        life.follow()
    assert life.age < 4
    assert hint in failed.value.hint


def test_unusable_answer_is_asked_again():
    life = Life(outcomes={2: Readiness(Outcome.NOT_ANSWERING, "no text"), 3: READY})
    assert life.follow().elapsed_s >= 3


def test_server_without_answers_fails_the_start():
    life = Life(outcomes={2: Readiness(Outcome.NOT_ANSWERING, "no text")})
    with pytest.raises(StartFailedError, match="not answering after 0:11: no text"):
        life.follow()


def test_start_without_progress_times_out():
    life = Life(lines=dict.fromkeys(range(1, 200), "chatter that means nothing"))
    with pytest.raises(TimedOutError, match='no progress in "container" for 60 s') as stalled:
        life.follow()
    assert 60 <= life.age < 61
    assert "startup_timeout_s" in stalled.value.hint


@pytest.mark.parametrize(
    "line",
    [
        lambda at: (
            f"Loading safetensors checkpoint shards:  {at // 10}% Completed | {at}/1000 [00:04<00:04,  4s/it]"
        ),
        lambda at: f"INFO 11-23 12:00:00 [gpu_worker.py:578] Compile and warming up model for size {at}",
    ],
)
def test_progress_moves_the_deadline(line: Callable[[int], str]):
    life = Life(lines={at: line(at) for at in range(50, 500, 50)}, outcomes={505: READY})
    assert life.follow().elapsed_s == pytest.approx(505, abs=1)


def test_start_times_out_after_last_progress():
    life = Life(lines={50: "INFO 11-23 12:00:00 [gpu_worker.py:578] Compile and warming up model for size 8"})
    with pytest.raises(TimedOutError, match="warm-up"):
        life.follow()
    assert 110 <= life.age < 111


@pytest.mark.parametrize("state", ["exited", "missing"])
def test_ended_gateway_is_named_as_the_cause(state: Literal["exited", "missing"]) -> None:
    """Its own log explains it; the engine's, which is healthy, does not."""
    refused = 'nginx: [emerg] open() "/etc/deckard/access.conf" failed (13: Permission denied)'
    life = Life(
        lines={1: "INFO Loading weights took 1.00 seconds"},
        turns={3: FakeObservation(gateway=state, gateway_exit_code=1)},
        gateway_lines=(refused, "nginx: configuration file test failed"),
    )
    with pytest.raises(StartFailedError) as raised:
        life.follow()
    how = "exited with code 1" if state == "exited" else "is gone"
    assert raised.value.message == f"start failed after 0:03: the gateway {how}: {refused}"
    assert raised.value.hint == "deckard-deploy logs"


def test_gateway_that_docker_restarts_is_waited_for() -> None:
    life = Life(
        turns={0: FakeObservation(gateway="restarting"), 2: FakeObservation(gateway="running")},
        outcomes={4: Readiness(Outcome.READY, "hi")},
    )
    assert life.follow().elapsed_s >= 4
