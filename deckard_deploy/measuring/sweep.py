"""A sweep: at each concurrency a warm-up that is thrown away, then the runs, each with prompts of its own."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import log, sqrt
from statistics import stdev
from typing import Any

from deckard_deploy.measuring.engine_bench import Bench, Endpoint, opened
from deckard_deploy.measuring.records import Acceptance, Percentiles, Request, Run
from deckard_deploy.measuring.workload import Settings

Say = Callable[[str], None]
# Standard error of the mean logarithm: at five concurrencies together a tenth is then beyond doubt.
SURE = 0.03


def sweep(endpoints: Sequence[Endpoint], settings: Settings, say: Say) -> Iterator[tuple[Run, ...]]:
    """One Run of each endpoint after the other, as they end; `say` gets a line before each concurrency.

    Several endpoints are asked in turn with the same prompts, so that what else the machine does falls on all alike.
    vLLM's own --num-warmups is not used: it sends the first measured prompt, which then lies in the prefix cache
    (benchmarks/serve.py of 0.19.1, `test_input`). Raises EnvironmentUnfitError, NetworkError.
    """
    with ExitStack() as stack:
        benches = [stack.enter_context(opened(endpoint)) for endpoint in endpoints]
        for concurrency in settings.concurrency:
            say(f"bench    {concurrency} at once: warm-up, then {settings.counted} runs")
            _round(benches, settings, concurrency, requests=concurrency)
            done: list[tuple[Run, ...]] = []
            while not enough([_figure(runs) for runs in done], settings):
                # First now the one, now the other: who comes second finds the machine as the first one left it.
                order = benches[:: -1 if len(done) % 2 else 1]
                runs = _round(order, settings, concurrency, requests=concurrency * settings.requests)
                done.append(runs[:: -1 if len(done) % 2 else 1])
                yield done[-1]
            if len(done) > settings.runs:
                say(f"bench    {concurrency} at once: far apart, so {len(done)} runs")


def enough(figures: Sequence[float], settings: Settings) -> bool:
    """Whether another run is not needed: their mean is sure, or there are as many as there may be."""
    if len(figures) < settings.runs:
        return False
    most = settings.most_runs or settings.runs
    return len(figures) >= most or (
        len(figures) > 1 and stdev(map(log, figures)) / sqrt(len(figures)) <= SURE
    )


def _figure(runs: Sequence[Run]) -> float:
    """What has to be sure: a speed, or of two endpoints the ratio."""
    return runs[-1].tokens_per_s / (runs[0].tokens_per_s if len(runs) > 1 else 1.0)


def _round(
    benches: Sequence[Bench], settings: Settings, concurrency: int, *, requests: int
) -> tuple[Run, ...]:
    seed = secrets.randbits(31)
    return tuple(one_run(bench, settings, concurrency, requests=requests, seed=seed) for bench in benches)


def one_run(bench: Bench, settings: Settings, concurrency: int, *, requests: int, seed: int) -> Run:
    """Measure once; the seed has to be a fresh one."""
    arguments = settings.arguments(concurrency, requests, seed)
    return run_of(bench.measure(arguments, settings.prompts(requests, seed)), concurrency, seed)


def run_of(result: dict[str, Any], concurrency: int, seed: int) -> Run:
    """The result JSON of `vllm bench serve` (benchmarks/serve.py of 0.19.1) as a Run."""
    columns = zip(
        result["ttfts"], result["latencies"], result["input_lens"], result["output_lens"], strict=True
    )
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
        requests=tuple(
            Request(ttft_s=first, latency_s=whole, input_tokens=sent, output_tokens=received)
            for first, whole, sent, received in columns
            if received  # a request that failed has none
        ),
    )


def _percentiles(result: dict[str, Any], name: str) -> Percentiles:
    return Percentiles(**{f"p{number}": result[f"p{number}_{name}_ms"] for number in (50, 90, 99)})


def _acceptance(result: dict[str, Any]) -> Acceptance | None:
    if not result.get("spec_decode_draft_tokens"):
        return None
    return Acceptance(
        drafts=result["spec_decode_num_drafts"],
        draft_tokens=result["spec_decode_draft_tokens"],
        accepted_tokens=result["spec_decode_accepted_tokens"],
        by_position=tuple(result["spec_decode_per_position_acceptance_rates"]),
    )
