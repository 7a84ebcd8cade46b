"""Ask vLLM's own KV cache functions, in the engine's Python: cases as JSON on stdin, answers as JSON on stdout.

A case: models (layers, period, shared, window, heads, head sizes), dtype, ranks, block size, length, tokens in flight,
available bytes, hybrid. An answer: what the engine would have logged, or the error that it would have died of.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import os
import re
import sys
from types import SimpleNamespace

os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"

import torch
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

try:
    from vllm.v1.core import kv_cache_planning

    BUILDER = (kv_cache_planning.DefaultKVCacheConfigBuilder(),)
except ImportError:  # before 0.33.0
    kv_cache_planning, BUILDER = kv_cache_utils, ()

DTYPES = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}


class Log:
    """In the place of the module's logger: keeps what the reporting lines hold."""

    def __init__(self) -> None:
        self.lines = []

    def info_once(self, line: str, *values: object, **_: object) -> None:
        self.lines.append(line % values)

    info = debug = warning = info_once


def specs(case: dict) -> dict:
    found = {}
    for number, model in enumerate(case["models"]):
        for layer in range(model["layers"] - model["shared"]):
            full = (layer + 1) % model["period"] == 0
            heads = model["global_kv_heads" if full else "kv_heads"]
            common = {
                "block_size": case["block_size"],
                "num_kv_heads": max(1, heads // case["ranks"]),
                "head_size": model["global_head_dim" if full else "head_dim"],
                "dtype": DTYPES[case["element_bytes"]],
            }
            name = f"model{number}.layers.{layer}.self_attn.attn"
            found[name] = (
                FullAttentionSpec(**common)
                if full
                else SlidingWindowSpec(**common, sliding_window=model["window"])
            )
    return found


def config(case: dict, *, fit: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        model_config=SimpleNamespace(
            max_model_len=case["length"],
            original_max_model_len=-1 if fit else case["length"],
            supports_kv_cache_grouping=False,
        ),
        scheduler_config=SimpleNamespace(
            max_num_batched_tokens=case["in_flight"], disable_hybrid_kv_cache_manager=not case["hybrid"]
        ),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=1, prefill_context_parallel_size=1, tensor_parallel_size=1
        ),
        cache_config=SimpleNamespace(
            num_gpu_blocks_override=None,
            prefix_cache_retention_interval=None,
            get_resolved_kv_cache_layout=layout,
        ),
        max_in_flight_tokens=case["in_flight"],
        num_prefill_lookahead_tokens=0,
        speculative_config=None,
        attention_config=SimpleNamespace(hisparse_config=None),
        device_config=SimpleNamespace(device_type="cuda"),
    )


def layout() -> object:
    """The KV cache layout of 0.32.0 where a backend asks for none, as Triton's (v1/attention/backends/utils.py:195)."""
    from vllm.v1.kv_cache_layout import KVCacheLayout  # noqa: PLC0415  0.19.1 has none

    return KVCacheLayout.LBNHC


def answer(case: dict) -> dict:
    log = kv_cache_utils.logger = kv_cache_planning.logger = Log()
    asked = config(case)
    try:
        groups = kv_cache_planning.get_kv_cache_groups(asked, specs(case))
    except (ValueError, NotImplementedError) as error:
        return {"refused": str(error)}
    mixed = getattr(groups[0].kv_cache_spec, "kv_cache_specs", None)
    said = {
        "groups": [[len(group.layer_names), group.kv_cache_spec.block_size] for group in groups],
        "page": groups[0].kv_cache_spec.page_size_bytes
        * (1 if mixed else max(len(g.layer_names) for g in groups)),
        "sequence": kv_cache_planning._max_memory_usage_bytes_from_groups(*BUILDER, asked, groups),
        "longest": kv_cache_planning._estimate_max_model_len_from_groups(
            *BUILDER, asked, groups, case["available"]
        ),
    }
    try:
        given = (asked, [specs(case)], [case["available"]], *([groups] if BUILDER else []))
        kv_config = kv_cache_planning.get_kv_cache_configs(*given)[0]
    except ValueError as error:
        estimated = re.search(r"maximum model length is (\d+)", str(error))
        return {**said, "too_small": int(estimated[1]) if estimated else 0}
    concurrency = kv_cache_utils.get_max_concurrency_for_kv_cache_config(asked, kv_config)
    if hasattr(kv_cache_utils, "update_kv_cache_capacity"):
        kv_cache_utils.update_kv_cache_capacity(asked, kv_config)
    return {**said, "blocks": kv_config.num_blocks, "concurrency": concurrency, "log": log.lines}


if __name__ == "__main__":
    json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
