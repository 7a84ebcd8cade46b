"""A sweep: at each concurrency a warm-up that is thrown away, then the runs, each with prompts of its own."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from deckard_deploy.measuring.engine_bench import Bench, Endpoint, opened
from deckard_deploy.measuring.records import Acceptance, Percentiles, Request, Run
from deckard_deploy.measuring.workload import Settings

Say = Callable[[str], None]


def sweep(endpoint: Endpoint, settings: Settings, say: Say) -> Iterator[Run]:
    """One Run after the other, as they end; `say` gets a line before each concurrency.

    vLLM's own --num-warmups is not used: it sends the first measured prompt, which then lies in the prefix cache
    (benchmarks/serve.py of 0.19.1, `test_input`). Raises EnvironmentUnfitError, NetworkError.
    """
    with opened(endpoint) as bench:
        for concurrency in settings.concurrency:
            say(f"bench    {concurrency} at once: warm-up, then {settings.runs} runs")
            one_run(bench, settings, concurrency, requests=concurrency)
            for _ in range(settings.runs):
                yield one_run(bench, settings, concurrency, requests=concurrency * settings.requests)


def one_run(bench: Bench, settings: Settings, concurrency: int, *, requests: int) -> Run:
    """Measure once, with a fresh seed."""
    seed = secrets.randbits(31)
    arguments = settings.arguments(concurrency, requests, seed)
    return run_of(bench.measure(arguments, settings.prompts(requests, seed)), concurrency, seed)


def run_of(result: dict[str, Any], concurrency: int, seed: int) -> Run:
    """The result JSON of `vllm bench serve` (benchmarks/serve.py of 0.19.1) as a Run."""
    columns = zip(result["ttfts"], result["latencies"], result["input_lens"], result["output_lens"], strict=True)
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
