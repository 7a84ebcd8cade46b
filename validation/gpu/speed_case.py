"""Time one engine with random weights in the real 31B shapes, alone on its GPU; write what was measured.

The weights are those of random_weights.py: a drafter of any shape drafts perfectly, and what is timed is the machinery.

Usage: python -m validation.gpu.speed_case CASE.json RESULT.json (started by validate_speed.py, one process a case)
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import random
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from vllm import LLM, SamplingParams

from validation.gpu import random_weights
from validation.gpu.outcome import leave
from validation.gpu.random_weights import VOCABULARY, write_config

PROMPT, TOKENS, REPEATS = 128, 128, 3
BATCHES = (1, 4, 16)


def counters(llm) -> tuple[float, float]:
    """Draft tokens and accepted ones, since the engine started."""
    found = {
        metric.name: metric.value
        for metric in llm.get_metrics()
        if "spec_decode" in metric.name and hasattr(metric, "value")
    }
    return found.get("vllm:spec_decode_num_draft_tokens", 0), found.get(
        "vllm:spec_decode_num_accepted_tokens", 0
    )


def seconds(llm, batch: int, tokens: int) -> float:
    draw = random.Random(batch)
    prompts = [
        {"prompt_token_ids": [draw.randrange(10, VOCABULARY) for _ in range(PROMPT)]} for _ in range(batch)
    ]
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    started = time.perf_counter()
    llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - started


def decode(llm, batch: int) -> dict[str, object]:
    """Seconds of TOKENS tokens after the first, which the prompt's own pass gives; of each repeat."""
    seconds(llm, batch, 1 + TOKENS)
    before = counters(llm)
    runs = [seconds(llm, batch, 1 + TOKENS) - seconds(llm, batch, 1) for _ in range(REPEATS)]
    drafted, accepted = (after - was for after, was in zip(counters(llm), before, strict=True))
    rate = [batch * TOKENS / run for run in runs]
    return {
        "tok_s": rate,
        "median": statistics.median(rate),
        "acceptance": accepted / drafted if drafted else None,
    }


def breakdown(llm, runner) -> dict[str, object]:
    """Milliseconds a step of each part at one request, each part run to its end before the next begins."""
    spent, calls = defaultdict(float), defaultdict(int)

    def timed(owner, name: str) -> None:
        original = getattr(owner, name)

        def run(*args, **options):
            torch.cuda.synchronize()
            started = time.perf_counter()
            result = original(*args, **options)
            torch.cuda.synchronize()
            spent[name] += time.perf_counter() - started
            calls[name] += 1
            return result

        setattr(owner, name, run)

    for name in ("_model_forward", "_sample", "propose_draft_token_ids"):
        timed(runner, name)
    whole = seconds(llm, 1, 1 + TOKENS)
    steps = calls["_model_forward"]
    return {"step_ms": 1e3 * whole / steps, "steps": steps} | {
        name: 1e3 * total / steps for name, total in spent.items()
    }


def kernels(llm) -> dict[str, object]:
    """(calls, microseconds) of each GPU kernel of 16 tokens of one request."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds(llm, 1, 16)
    found = [event for event in profile.key_averages() if event.self_device_time_total]
    found.sort(key=lambda event: -event.self_device_time_total)
    return {event.key[:160]: (event.count, round(event.self_device_time_total)) for event in found[:40]}


def engine_settings(case: dict, folder: Path) -> dict[str, object]:
    settings = {
        "model": write_config(folder / "target", case.get("shape", "31b"), case["algo"]),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "max_model_len": 1024,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 2048,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": case["kv_gib"] << 30,
        "gpu_memory_utilization": 0.95,
        "disable_log_stats": False,
        **case.get("engine", {}),
    }
    if case["draft_tokens"]:
        settings["speculative_config"] = {
            "method": "draft_model",
            "model": write_config(folder / "drafter", "e4b", "NVFP4"),
            "num_speculative_tokens": case["draft_tokens"],
            "max_model_len": 1024,
            **case.get("speculative", {}),
        }
    return settings


def run_case(case: dict, folder: Path) -> dict[str, object]:
    random_weights.use()
    started = time.perf_counter()
    llm = LLM(**engine_settings(case, folder))
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    result = {"gpu": torch.cuda.get_device_name(), "ready_s": time.perf_counter() - started}
    result["weights_gib"] = runner.model_memory_usage / 2**30
    result["decode"] = {batch: decode(llm, batch) for batch in BATCHES}
    result["kernels"] = kernels(llm)
    result["breakdown"] = breakdown(llm, runner)
    return result


if __name__ == "__main__":
    leave(lambda case: run_case(case, Path(sys.argv[2]).parent))
