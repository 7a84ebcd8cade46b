"""A sweep: at each concurrency a warm-up that is thrown away, then the runs, each with prompts of its own."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import log, sqrt
from statistics import stdev
from typing import Any

from deckard_deploy.measuring.engine_bench import Bench, Endpoint, benchmark_worker
from deckard_deploy.measuring.records import Acceptance, Percentiles, Request, Run
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.system.text import clock

Say = Callable[[str], None]
# Standard error of the mean logarithm: a difference of a tenth is then significant over five concurrencies
# together.
MAX_STANDARD_ERROR = 0.03
_LINE_INTERVAL_S = 10.0


def sweep(endpoints: Sequence[Endpoint], settings: Settings, say: Say) -> Iterator[tuple[Run, ...]]:
    """Yield rounds of one Run per endpoint, as they end. `say` gets a line before each concurrency.

    Several endpoints are measured in turn with the same prompts, so that other load on the machine slows all
    alike. vLLM's own --num-warmups is not used: it sends the first measured prompt, which then lies in the
    prefix cache (benchmarks/serve.py of 0.19.1, `test_input`). Raises EnvironmentUnfitError, NetworkError.
    """
    with ExitStack() as stack:
        benches = [stack.enter_context(benchmark_worker(endpoint)) for endpoint in endpoints]
        progress = SweepProgress(settings, say)
        for concurrency in settings.concurrency:
            say(f"bench    concurrency {concurrency}: warm-up, then {settings.counted} runs")
            _round(benches, settings, concurrency, requests=concurrency)
            figures: list[float] = []
            while not enough_runs(figures, settings):
                runs = _ordered_round(benches, settings, concurrency, reverse=len(figures) % 2 == 1)
                figures.append(_figure(runs))
                progress.show(runs, len(figures))
                yield runs
            if len(figures) > settings.runs:
                say(f"bench    concurrency {concurrency}: the results vary, so {len(figures)} runs")


class SweepProgress:
    """A line after a round, at most one every 10 s, with the time left."""

    def __init__(self, settings: Settings, say: Say, now: Callable[[], float] = time.monotonic) -> None:
        """Store the arguments. now: the clock, in seconds."""
        self._settings = settings
        self._say = say
        self._now = now
        self._began = now()
        self._said = self._began
        self._rounds = 0

    def show(self, runs: Sequence[Run], count: int) -> None:
        """Report a round. count: the number of rounds at its concurrency so far."""
        self._rounds += 1
        now = self._now()
        if now - self._said < _LINE_INTERVAL_S:
            return
        self._said = now
        concurrency = runs[0].concurrency
        speeds = ", ".join(f"{run.tokens_per_s:.1f}" for run in runs)
        self._say(
            f"bench    concurrency {concurrency}: run {count} of {self._settings.counted}, {speeds} tok/s, "
            f"at least {clock(self._left_s(concurrency, count, now))} left"
        )

    def _left_s(self, concurrency: int, count: int, now: float) -> float:
        """Return the seconds for the runs that are still to come, at the mean duration of a round so far.

        A round takes about as long at each concurrency, because each stream sends the same number of requests.
        """
        later = len(self._settings.concurrency) - 1 - self._settings.concurrency.index(concurrency)
        rounds = max(0, self._settings.runs - count) + later * self._settings.runs
        return rounds * (now - self._began) / self._rounds


def enough_runs(figures: Sequence[float], settings: Settings) -> bool:
    """Return True when no further run is needed: the mean is precise, or `most_runs` is reached."""
    count = len(figures)
    if count < settings.runs:
        return False
    if count >= (settings.most_runs or settings.runs):
        return True
    if count == 1:
        return False
    standard_error = stdev(map(log, figures)) / sqrt(count)
    return standard_error <= MAX_STANDARD_ERROR


def _figure(runs: Sequence[Run]) -> float:
    """Return the figure of a round that has to be precise: a speed, or the ratio of two endpoints."""
    if len(runs) == 1:
        return runs[0].tokens_per_s
    return runs[-1].tokens_per_s / runs[0].tokens_per_s


def _ordered_round(
    benches: Sequence[Bench], settings: Settings, concurrency: int, *, reverse: bool
) -> tuple[Run, ...]:
    """Measure a round and return its runs in the order of `benches`.

    reverse: measure the last endpoint first. Rounds alternate, because the first run of a round leaves the
    machine in another state than it found.
    """
    requests = concurrency * settings.requests
    if not reverse:
        return _round(benches, settings, concurrency, requests=requests)
    runs = _round(benches[::-1], settings, concurrency, requests=requests)
    return runs[::-1]


def _round(
    benches: Sequence[Bench], settings: Settings, concurrency: int, *, requests: int
) -> tuple[Run, ...]:
    seed = secrets.randbits(31)
    return tuple(measure_run(bench, settings, concurrency, requests=requests, seed=seed) for bench in benches)


def measure_run(bench: Bench, settings: Settings, concurrency: int, *, requests: int, seed: int) -> Run:
    """Measure one run. The seed has to be a fresh one. Raises EnvironmentUnfitError, NetworkError."""
    arguments = settings.arguments(concurrency, requests, seed)
    return run_from_result(bench.measure(arguments, settings.prompts(requests, seed)), concurrency, seed)


def run_from_result(result: dict[str, Any], concurrency: int, seed: int) -> Run:
    """Convert the result JSON of `vllm bench serve` (benchmarks/serve.py of 0.19.1)."""
    return Run(
        concurrency=concurrency,
        seed=seed,
        duration_s=result["duration"],
        completed=result["completed"],
        failed=result["failed"],
        input_tokens=result["total_input_tokens"],
        output_tokens=result["total_output_tokens"],
        tokens_per_s=result["output_throughput"],
        ttft=_percentiles(result, "ttft"),
        itl=_percentiles(result, "itl"),
        tpot=_percentiles(result, "tpot"),
        latency=_percentiles(result, "e2el"),
        acceptance=_acceptance(result),
        requests=_requests(result),
    )


def _requests(result: dict[str, Any]) -> tuple[Request, ...]:
    """Return the answered requests; a failed one has no output tokens."""
    columns = zip(
        result["ttfts"], result["latencies"], result["input_lens"], result["output_lens"], strict=True
    )
    requests = []
    for ttft_s, latency_s, input_tokens, output_tokens in columns:
        if output_tokens:
            requests.append(
                Request(
                    ttft_s=ttft_s,
                    latency_s=latency_s,
                    input_tokens=input_tokens,
                    output_tokens=output_tokens,
                )
            )
    return tuple(requests)


def _percentiles(result: dict[str, Any], name: str) -> Percentiles:
    return Percentiles(
        p50=result[f"p50_{name}_ms"], p90=result[f"p90_{name}_ms"], p99=result[f"p99_{name}_ms"]
    )


def _acceptance(result: dict[str, Any]) -> Acceptance | None:
    if not result.get("spec_decode_draft_tokens"):
        return None
    return Acceptance(
        drafts=result["spec_decode_num_drafts"],
        draft_tokens=result["spec_decode_draft_tokens"],
        accepted_tokens=result["spec_decode_accepted_tokens"],
        by_position=tuple(result["spec_decode_per_position_acceptance_rates"]),
    )
