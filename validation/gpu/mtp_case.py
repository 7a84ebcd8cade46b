"""MTP on vLLM 0.32.0 and 0.33.0 on a GPU, by model runner V2: identical text on the tiny model, speed at 31B shapes.

    PYTHONPATH=SITE:. python3 -m validation.gpu.mtp_case text FOLDER RESULT.json good|short|random|none MODE [FORMAT]
    PYTHONPATH=SITE:. python3 -m validation.gpu.mtp_case speed FOLDER RESULT.json ALGO DRAFT_TOKENS

MODE is eager or graphs. The checkpoints are made on the spot: the tiny ones are those of the CPU tests, the large ones
are speed_case.py's. The large assistant has the released one's shape (470 million parameters); its head is made from
the target's embedding, so that it repeats the last token as its target does, and drafts perfectly.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import hashlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

import torch
from vllm import LLM, SamplingParams
from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

from deckard_deploy.rehearsal import assistant as tiny_assistant
from deckard_deploy.rehearsal import gemma4
from validation.gpu import random_weights, speed_case

QUESTIONS = ("Hello?", "Who are you?", "Think about it.", "What is the weather in Paris?", "Tell me more.")


def text(folder: Path, kind: str | None, quantization: str, *, graphs: bool) -> dict[str, object]:
    target = gemma4.write(folder / "target", quantization=quantization)
    settings = {"max_model_len": 1024, "max_num_seqs": 8, "kv_cache_memory_bytes": 1 << 30}
    settings |= {"gpu_memory_utilization": 0.1, "enforce_eager": not graphs, "disable_log_stats": False}
    if kind:
        assistant = tiny_assistant.write(folder / kind, kind=kind)
        settings["speculative_config"] = {"model": str(assistant), "num_speculative_tokens": 4}
    llm = LLM(model=str(target), **settings)
    params = SamplingParams(temperature=0, max_tokens=96, ignore_eos=True)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    outputs = [*llm.chat(chats, params, use_tqdm=False), *llm.chat(chats[:1], params, use_tqdm=False)]
    drafted, accepted = speed_case.counters(llm)
    tokens = [list(output.outputs[0].token_ids) for output in outputs]
    return {
        "tokens": tokens,
        "text": hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:12],
        "drafted": drafted,
        "accepted": accepted,
        "runner": type(runner_of(llm)).__module__,
    }


def runner_of(llm):
    return llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner


@torch.no_grad()
def repeat_last_token(llm, hidden: int) -> None:
    runner = runner_of(llm)
    draft = runner.speculator.model
    into = draft.model.pre_projection.weight
    into[:, hidden:] = 0  # nothing of the target's hidden state
    embedding = draft.model.embed_tokens.weight
    for rows in range(0, len(embedding), 8192):
        draft.lm_head.weight[rows : rows + 8192] = embedding[rows : rows + 8192] @ into[:, :hidden].T


def speed(folder: Path, algo: str, tokens: int) -> dict[str, object]:
    DummyModelLoader.load_weights = lambda _, model, config: random_weights.fill(model, config)
    target = random_weights.write_config(folder / "target", "31b", algo)
    settings = {"model": target, "load_format": "dummy", "skip_tokenizer_init": True, "dtype": "bfloat16"}
    settings |= {"max_model_len": 1024, "max_num_seqs": 16, "max_num_batched_tokens": 2048}
    settings |= {
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": 8 << 30,
        "gpu_memory_utilization": 0.9,
    }
    # The sizes of the batches below, with and without drafts; capturing all sizes takes minutes.
    sizes = sorted({batch * (1 + drafts) for batch in speed_case.BATCHES for drafts in {0, tokens}})
    settings["compilation_config"] = {"cudagraph_capture_sizes": sizes}
    if tokens:
        assistant = random_weights.write_assistant(folder / "assistant", folder / "target")
        settings["speculative_config"] = {"model": assistant, "num_speculative_tokens": tokens}
    started = time.perf_counter()
    llm = LLM(disable_log_stats=False, **settings)
    result = {"gpu": torch.cuda.get_device_name(), "ready_s": time.perf_counter() - started}
    result["runner"] = type(runner_of(llm)).__module__
    if tokens:
        repeat_last_token(llm, random_weights.SHAPES["31b"]["hidden_size"])
    result["decode"] = {batch: speed_case.decode(llm, batch) for batch in speed_case.BATCHES}
    return result


if __name__ == "__main__":
    verb, folder, out, *rest = sys.argv[1:]
    Path(folder).mkdir(parents=True)
    try:
        if verb == "text":
            kind, mode, *form = rest
            quantization = form[0] if form else "none"
            found = text(
                Path(folder), None if kind == "none" else kind, quantization, graphs=mode == "graphs"
            )
        else:
            found = speed(Path(folder), rest[0], int(rest[1]))
    except BaseException as error:  # noqa: BLE001  # what went wrong is the result
        found = {"error": f"{type(error).__name__}: {error}"[:600]}
        traceback.print_exc()
    Path(out).write_text(json.dumps(found))
    print({key: value for key, value in found.items() if key != "tokens"}, flush=True)
    os._exit(0)  # engines that ended in an error do not come down by themselves
