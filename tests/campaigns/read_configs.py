"""Read model folders in the engine's Python: folders as JSON on stdin, what vLLM and transformers read on stdout.

Of each: the architecture, the longest context and the numbers that vLLM's ModelConfig takes from it, and for each layer
head size and KV heads of transformers' configuration; or the error, in one line.
"""

# vLLM is in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import os
import sys

os.environ.update(VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import vllm.config  # noqa: F401  first: the modules below import one another
from vllm.transformers_utils.config import get_config, get_hf_text_config
from vllm.transformers_utils.model_arch_config_convertor import (
    MODEL_ARCH_CONFIG_CONVERTORS,
    ModelArchConfigConvertorBase,
)


def layers(text: object) -> list[list[object]]:
    """Return kind, head size, KV heads of each layer, as transformers has them."""
    kinds = text.layer_types
    per_layer = getattr(text, "per_layer_config", None)
    if per_layer is None:
        return [older_layer(text, kind) for kind in kinds]
    return [
        [kind, per_layer[number].head_dim, per_layer[number].num_key_value_heads]
        for number, kind in enumerate(kinds)
    ]


def older_layer(text: object, kind: str) -> list[object]:
    """Return a layer of a transformers without per_layer_config, as vLLM 0.19.1 reads it (models/gemma4.py:459-470)."""
    if kind != "full_attention":
        return [kind, text.head_dim, text.num_key_value_heads]
    kv_heads = text.num_global_key_value_heads if text.attention_k_eq_v else None
    return [kind, text.global_head_dim or text.head_dim, kv_heads or text.num_key_value_heads]


def read(folder: str) -> dict[str, object]:
    """Return what the engine makes of a folder."""
    try:
        config = get_config(folder, trust_remote_code=False)
        text = get_hf_text_config(config)
        # As ModelConfig.get_model_arch_config, without a process for each class of model.
        converter = MODEL_ARCH_CONFIG_CONVERTORS.get(config.model_type, ModelArchConfigConvertorBase)
        architecture = converter(config, text).convert()
        name = architecture.architectures[0]
    except (ValueError, OSError, LookupError, RuntimeError, AttributeError, TypeError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"refused": f"{type(error).__name__}: {' '.join(lines)[:200]}"}
    found = {
        "architecture": name,
        "context": int(architecture.derived_max_model_len_and_key[0]),
        "layers": architecture.total_num_hidden_layers,
        "hidden": architecture.hidden_size,
        "heads": architecture.total_num_attention_heads,
        "vocabulary": architecture.vocab_size,
        "experts": architecture.num_experts,
    }
    if text.model_type == "gemma4_text":
        found["window"] = text.sliding_window
        found["shared"] = text.num_kv_shared_layers
        found["per_layer"] = text.hidden_size_per_layer_input
        found["experts_per_token"] = text.top_k_experts or 0
        found["by_layer"] = layers(text)
    return found


if __name__ == "__main__":
    answers = [read(folder) for folder in json.load(sys.stdin)]
    print("\n@@" + json.dumps(answers))
