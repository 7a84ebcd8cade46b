"""Sample records, based on results that vLLM wrote."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deckard_deploy.measuring.records import (
    Acceptance,
    BenchRecord,
    Ceiling,
    Percentiles,
    RecordHeader,
    Request,
    Run,
    Subject,
    save,
)
from deckard_deploy.measuring.workload import Settings

RECORDED = Path(__file__).parents[1] / "unit" / "measuring" / "recorded"
# `vllm bench serve` of 0.19.1 against the CPU rehearsal: 2 at once, 4 requests of at most 32 tokens.
RESULT: dict[str, Any] = json.loads((RECORDED / "serve-0.19.1.json").read_text())
# The keys that it adds with a drafter (benchmarks/serve.py:1018 of 0.19.1): 56 drafts of 4, 204 accepted.
SPECULATIVE: dict[str, Any] = {
    "spec_decode_acceptance_rate": 204 / 224 * 100,
    "spec_decode_acceptance_length": 1 + 204 / 56,
    "spec_decode_num_drafts": 56,
    "spec_decode_draft_tokens": 224,
    "spec_decode_accepted_tokens": 204,
    "spec_decode_per_position_acceptance_rates": [0.95, 0.92, 0.9, 0.87],
}
TIMES = Percentiles(p50=1.0, p90=2.0, p99=3.0)


def run(speed: float, *, concurrency: int = 1, failed: int = 0, drafts: int = 0, accepted: int = 0) -> Run:
    """A run of `speed` tokens per second; drafts have four tokens, of which at most the first is accepted."""
    acceptance = drafts and Acceptance(
        drafts=drafts,
        draft_tokens=4 * drafts,
        accepted_tokens=accepted,
        by_position=(accepted / drafts, 0.0, 0.0, 0.0),
    )
    return Run(
        concurrency=concurrency,
        seed=1,
        duration_s=1.0,
        completed=1,
        failed=failed,
        input_tokens=8,
        output_tokens=8,
        tokens_per_s=speed,
        ttft=TIMES,
        itl=TIMES,
        tpot=TIMES,
        latency=TIMES,
        acceptance=acceptance or None,
        requests=(Request(ttft_s=0.1, latency_s=8 / speed, input_tokens=8, output_tokens=8),),
    )


def header(*, name: str = "made", ceilings: tuple[Ceiling, ...] = ()) -> RecordHeader:
    """A record's header."""
    return RecordHeader(
        id=f"20261125-000000-{name}",
        made_at="2026-11-25T00:00:00+00:00",
        tool_version="0",
        subject=Subject(model="tiny-gemma4", engine="vllm-0.19.1-cpu", vllm_version="0.19.1", profile="cpu"),
        host={},
        settings=Settings(),
        command=(),
        ceilings=ceilings,
    )


def record(runs: Iterable[Run], *, name: str = "made", ceilings: tuple[Ceiling, ...] = ()) -> BenchRecord:
    """A record of these runs."""
    return header(name=name, ceilings=ceilings).record(runs=runs)


FAST, SLOW, SAME = (f"20261125-000000-{name}" for name in ("a-fast", "b-slow", "c-same"))


def save_three(folder: Path) -> None:
    """Save a fast record, a slow one, and one as fast as the first: five runs at 1 and at 4 each."""
    folder.mkdir()
    for name, factor in (("a-fast", 1.0), ("b-slow", 0.9), ("c-same", 1.003)):
        runs = [
            run(factor * number * speed, concurrency=number)
            for number in (1, 4)
            for speed in (10.0, 10.1, 9.9, 10.05, 9.95)
        ]
        ceilings = (Ceiling(concurrency=1, tokens_per_s=20.0), Ceiling(concurrency=4, why="no bandwidth"))
        save(folder, record(runs, name=name, ceilings=ceilings))


def full_record() -> BenchRecord:
    runs = [run(speed, concurrency=1, drafts=10, accepted=7, failed=1) for speed in (9.0, 10.0, 11.0)]
    whole = record(runs, ceilings=(Ceiling(concurrency=1, tokens_per_s=20.0),))
    return whole.model_copy(update={"subject": whole.subject.model_copy(update={"model": "<script>"})})
