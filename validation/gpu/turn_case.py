"""One engine of validate_turns, in a process of its own: start it, then measure whatever the parent asks for.

Usage: python -m validation.gpu.turn_case DESCRIPTOR CASE.json (started by validate_turns)
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import hashlib
import json
import os
import random
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from vllm import LLM, SamplingParams
from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

from validation.gpu import mtp_case, random_weights
from validation.gpu.speed_case import counters


def start(case: dict, folder: Path) -> LLM:
    """Start the engine with random weights, and with an assistant that is always right if it drafts."""
    DummyModelLoader.load_weights = lambda _, model, config: random_weights.fill(model, config)
    settings = {
        "model": random_weights.write_config(folder / "target", case["shape"], case["algo"]),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "disable_log_stats": False,
        **case["engine"],
    }
    if case["backend"]:
        settings["linear_backend"] = case["backend"]
    if case["tokens"]:
        assistant = random_weights.write_assistant(folder / "assistant", folder / "target")
        settings["speculative_config"] = {"model": assistant, "num_speculative_tokens": case["tokens"]}
    llm = LLM(**settings)
    # A CPU's linears have packed their weights by now: there the assistant stays random.
    if case["tokens"] and torch.cuda.is_available():
        mtp_case.repeat_last_token(llm, random_weights.SHAPES[case["shape"]]["hidden_size"])
    return llm


def generate(llm: LLM, requests: int, context: int, tokens: int) -> tuple[float, list[list[int]]]:
    """Return the seconds that all requests took together, and their tokens.

    The nth request of a length is the same in every batch, so that the prefix cache has its prompt.
    """
    prompts = []
    for index in range(requests):
        draw = random.Random(context * 1000 + index)
        prompts.append(
            {"prompt_token_ids": [draw.randrange(10, random_weights.VOCABULARY) for _ in range(context)]}
        )
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    started = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - started, [list(output.outputs[0].token_ids) for output in outputs]


def measure(llm: LLM, requests: int, context: int, tokens: int) -> dict:
    """Return tokens a second after the first token of each request, and what was drafted and accepted."""
    first, _ = generate(llm, requests, context, 1)
    before = counters(llm)
    whole, said = generate(llm, requests, context, 1 + tokens)
    drafted, accepted = (after - was for after, was in zip(counters(llm), before, strict=True))
    text = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return {
        "tok_s": requests * tokens / (whole - first),
        "drafted": drafted,
        "accepted": accepted,
        "text": text,
    }


def serve(parent: Connection, case: dict, folder: Path) -> None:
    started = time.perf_counter()
    try:
        llm = start(case, folder)
    except BaseException as error:  # noqa: BLE001  # what went wrong is the result
        traceback.print_exc()
        parent.send({"error": f"{type(error).__name__}: {error}"[:600]})
        return
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    ready_s = time.perf_counter() - started
    parent.send({"ready_s": ready_s, "gpu": gpu, "runner": type(mtp_case.runner_of(llm)).__module__})
    while point := parent.recv():
        parent.send(measure(llm, *point))


if __name__ == "__main__":
    file = Path(sys.argv[2])
    serve(Connection(int(sys.argv[1])), json.loads(file.read_text()), file.parent)
    sys.stdout.flush()
    os._exit(0)  # engines that ended in an error do not come down by themselves
