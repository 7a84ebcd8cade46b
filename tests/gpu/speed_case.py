"""Time one engine with random weights in the real 31B shapes, alone on its GPU; write what was measured.

The weights are made on the device, seeded by name. Post-norms are small and the head is the embedding, so that every
model of this kind repeats its last token: a drafter of any shape drafts perfectly, and what is timed is the machinery.

Usage: python speed_case.py CASE.json RESULT.json (started by validate_speed.py, one process a case)
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import os
import random
import statistics
import sys
import time
import traceback
import zlib
from collections import defaultdict
from pathlib import Path

import torch
from transformers import Gemma4TextConfig
from vllm import LLM, SamplingParams
from vllm.model_executor.model_loader import dummy_loader

VOCABULARY = 262144
SLIDING, FULL = "sliding_attention", "full_attention"
ROPE = {
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    SLIDING: {"rope_type": "default", "rope_theta": 1e4},
}
# The numbers of the two config.json files; deckard_deploy/catalog/models/ says where they were read.
SHAPES = {
    "31b": {
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 60,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
    },
    "e4b": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 42,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
        "num_kv_shared_layers": 18,
    },
}
PROMPT, TOKENS, REPEATS = 128, 128, 3
BATCHES = (1, 4, 16)


def write_config(folder: Path, shape: str, algo: str | None) -> str:
    settings = SHAPES[shape]
    config = Gemma4TextConfig(
        vocab_size=VOCABULARY,
        vocab_size_per_layer_input=VOCABULARY,
        layer_types=([SLIDING] * 5 + [FULL]) * (settings["num_hidden_layers"] // 6),
        head_dim=256,
        global_head_dim=512,
        rope_parameters=ROPE,
        max_position_embeddings=131072,
        tie_word_embeddings=True,
        **settings,
    ).to_dict()
    config |= {"architectures": ["Gemma4ForCausalLM"], "dtype": "bfloat16"}
    if algo:
        config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": algo, "ignore": ["lm_head"]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@torch.no_grad()
def fill(model, _model_config) -> None:
    """In place of initialize_dummy_weights, which leaves FP4 codes as the memory was."""
    saved = model.state_dict().keys()  # not the buffers that the code computes, such as the embedding's factor
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in saved:
            continue
        data, random_ = tensor.data, torch.Generator("cuda").manual_seed(zlib.crc32(name.encode()))
        if data.dtype == torch.uint8:
            data.random_(0, 256, generator=random_)
        elif data.dtype == torch.float8_e4m3fn:
            data.copy_(torch.rand(data.shape, generator=random_, device="cuda", dtype=torch.float16) + 0.5)
        elif name.endswith(("weight_scale_2", "input_scale")):
            data.fill_(0.005)  # codes have a root mean square of 2.9: the weights come to about 0.015
        elif name.endswith("pre_quant_scale"):
            if name.split(".")[-2] in ("o_proj", "down_proj"):  # where ModelOpt's export leaves it for Gemma 4
                data.copy_(torch.rand(data.shape, generator=random_, device="cuda") + 0.5)
                tensor.shards_loaded = 1
        elif "norm" in name or data.numel() == 1:
            small = any(part in name for part in ("q_norm", "k_norm", "post_attention", "post_feedforward"))
            data.fill_(0.3 if small else 1.0)
        elif data.is_floating_point():
            data.normal_(0, 0.04 if "embed_tokens." in name else 0.02, generator=random_)


def counters(llm) -> tuple[float, float]:
    """Draft tokens and accepted ones, since the engine started."""
    found = {
        metric.name: metric.value
        for metric in llm.get_metrics()
        if "spec_decode" in metric.name and hasattr(metric, "value")
    }
    return found.get("vllm:spec_decode_num_draft_tokens", 0), found.get("vllm:spec_decode_num_accepted_tokens", 0)


def seconds(llm, batch: int, tokens: int) -> float:
    draw = random.Random(batch)  # noqa: S311
    prompts = [{"prompt_token_ids": [draw.randrange(10, VOCABULARY) for _ in range(PROMPT)]} for _ in range(batch)]
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    torch.cuda.synchronize()
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
    return {"tok_s": rate, "median": statistics.median(rate), "acceptance": accepted / drafted if drafted else None}


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


def run_case(case: dict, folder: Path) -> dict[str, object]:
    dummy_loader.initialize_dummy_weights = fill
    settings = {
        "model": write_config(folder / "target", "31b", case["algo"]),
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
    started = time.perf_counter()
    llm = LLM(**settings)
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    result = {"gpu": torch.cuda.get_device_name(), "ready_s": time.perf_counter() - started}
    result["weights_gib"] = runner.model_memory_usage / 2**30
    result["decode"] = {batch: decode(llm, batch) for batch in BATCHES}
    result["breakdown"] = breakdown(llm, runner)
    return result


if __name__ == "__main__":
    outcome: dict[str, object] = {}
    try:
        outcome = run_case(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).parent)
    except BaseException as error:  # noqa: BLE001  # what went wrong is the result
        outcome = {"error": f"{type(error).__name__}: {error}"[:600]}
        traceback.print_exc()
    Path(sys.argv[2]).write_text(json.dumps(outcome, indent=1))
    sys.stdout.flush()
    os._exit(0)  # engines that ended in an error do not come down by themselves
