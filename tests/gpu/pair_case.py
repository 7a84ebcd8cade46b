"""Time two engines in turn, both alive on one GPU, so that the machine's state falls on both alike.

Usage: python pair_case.py CASE.json RESULT.json (started by validate_pair.py); CASE: {"cases": {name: case of
speed_case.py}, "seconds": for all turns}.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import os
import sys
import time
import traceback
from pathlib import Path

import torch
from speed_case import BATCHES, TOKENS, engine_settings, seconds
from vllm import LLM


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


if __name__ == "__main__":
    outcome: dict[str, object] = {}
    try:
        job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).parent
        settings = {name: engine_settings(case, folder / name) for name, case in job["cases"].items()}
        outcome["tok_s"] = measure({name: LLM(**options) for name, options in settings.items()}, job["seconds"])
        outcome["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    except BaseException as error:  # noqa: BLE001  # what went wrong is the result
        outcome = {"error": f"{type(error).__name__}: {error}"[:600]}
        traceback.print_exc()
    Path(sys.argv[2]).write_text(json.dumps(outcome, indent=1))
    sys.stdout.flush()
    os._exit(0)  # engines that ended in an error do not come down by themselves
