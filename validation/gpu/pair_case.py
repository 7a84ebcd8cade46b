"""Time two engines in turn, both alive on one GPU, so that the machine's state falls on both alike.

Usage: python -m validation.gpu.pair_case CASE.json RESULT.json (started by validate_pair)
CASE: {"cases": {name: case of speed_case}, "seconds": for all turns}
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import sys
import time
from pathlib import Path

import torch
from vllm import LLM

from validation.gpu.outcome import leave
from validation.gpu.speed_case import BATCHES, TOKENS, engine_settings, seconds


def measure(engines: dict[str, LLM], limit_s: float) -> dict[int, dict[str, list[float]]]:
    """Tokens a second after the first of each request, by batch and engine; now the one is first, now the other."""
    found = {batch: {name: [] for name in engines} for batch in BATCHES}
    for batch in BATCHES:
        for llm in engines.values():
            seconds(llm, batch, 1 + TOKENS)
    deadline, turn = time.monotonic() + limit_s, 0
    while time.monotonic() < deadline:
        for batch in BATCHES:
            for name in sorted(engines, reverse=bool(turn % 2)):
                took = seconds(engines[name], batch, 1 + TOKENS) - seconds(engines[name], batch, 1)
                found[batch][name].append(batch * TOKENS / took)
        turn += 1
    return found


def run_case(case: dict, folder: Path) -> dict[str, object]:
    settings = {name: engine_settings(one, folder / name) for name, one in case["cases"].items()}
    found = measure({name: LLM(**options) for name, options in settings.items()}, case["seconds"])
    return {"tok_s": found, "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


if __name__ == "__main__":
    leave(lambda case: run_case(case, Path(sys.argv[2]).parent))
