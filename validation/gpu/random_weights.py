"""Random weights in real shapes: a configuration, a tokenizer, and how vLLM's dummy loader is to fill what it made.

The weights are made on the device, seeded by name. Post-norms are small and the head is the embedding, so that every
model of this kind repeats its last token: a drafter of any shape drafts perfectly.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import sys
import zlib
from pathlib import Path

import torch

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
    "small": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sliding_window": 512,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "head_dim": 64,
        # A CPU has no attention for 512 (vLLM 0.19.1 v1/attention/backends/cpu_attn.py:41)
        "global_head_dim": 128,
    },
}


# 4 layers, hidden 1024 and 5376 of the target: deckard_deploy/catalog/models/gemma-4-31b-assistant.yaml. The inner
# size is what comes to its 470 million parameters.
ASSISTANT = {
    "hidden_size": 1024,
    "intermediate_size": 8192,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 4,
}


def write_config(folder: Path, shape: str, algo: str | None) -> str:
    from transformers import Gemma4TextConfig  # noqa: PLC0415  seconds, and as a plugin it is not needed

    settings = SHAPES[shape]
    config = Gemma4TextConfig(
        vocab_size=VOCABULARY,
        vocab_size_per_layer_input=VOCABULARY,
        layer_types=([SLIDING] * 5 + [FULL]) * (settings["num_hidden_layers"] // 6),
        rope_parameters=ROPE,
        max_position_embeddings=131072,
        tie_word_embeddings=True,
        **{"head_dim": 256, "global_head_dim": 512, **settings},
    ).to_dict()
    config |= {"architectures": ["Gemma4ForCausalLM"], "dtype": "bfloat16"}
    if algo:
        config["quantization_config"] = {
            "quant_method": "modelopt",
            "quant_algo": algo,
            "ignore": ["lm_head"],
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def write_assistant(folder: Path, target: Path) -> str:
    """Write the configuration of the released assistant's shape for a target. Return its folder."""
    target = json.loads((target / "config.json").read_text())
    layers = {"layer_types": ["sliding_attention"] * 3 + ["full_attention"], "vocab_size_per_layer_input": 0}
    folder.mkdir()
    config = {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "model_type": "gemma4_assistant",
        "dtype": "bfloat16",
        "backbone_hidden_size": target["hidden_size"],
        "tie_word_embeddings": False,
        "text_config": {
            **{k: v for k, v in target.items() if k != "quantization_config"},
            **ASSISTANT,
            **layers,
        },
    }
    config["text_config"].pop("per_layer_config", None)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@torch.no_grad()
def fill(model, _model_config) -> None:
    """In place of initialize_dummy_weights, which leaves FP4 codes as the memory was."""
    # Not the buffers that the code computes, such as the embedding's factor.
    saved = model.state_dict().keys()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in saved:
            continue
        data = tensor.data
        random_ = torch.Generator(data.device).manual_seed(zlib.crc32(name.encode()))
        if data.dtype == torch.uint8:
            data.random_(0, 256, generator=random_)
        elif data.dtype == torch.float8_e4m3fn:
            data.copy_(
                torch.rand(data.shape, generator=random_, device=data.device, dtype=torch.float16) + 0.5
            )
        elif name.endswith(("weight_scale_2", "input_scale")):
            data.fill_(0.005)  # codes have a root mean square of 2.9: the weights come to about 0.015
        elif name.endswith("pre_quant_scale"):
            # ModelOpt's export leaves it there for Gemma 4.
            if name.split(".")[-2] in ("o_proj", "down_proj"):
                data.copy_(torch.rand(data.shape, generator=random_, device=data.device) + 0.5)
                tensor.shards_loaded = 1
        elif "norm" in name or data.numel() == 1:
            small = any(part in name for part in ("q_norm", "k_norm", "post_attention", "post_feedforward"))
            data.fill_(0.3 if small else 1.0)
        elif data.is_floating_point():
            data.normal_(0, 0.04 if "embed_tokens." in name else 0.02, generator=random_)
    print(
        f"random_weights: filled the {len(saved)} tensors of {type(model).__name__}",
        file=sys.stderr,
        flush=True,
    )


def write_tokenizer(folder: Path, marks: tuple[str, ...] = ()) -> None:
    """A word for each token, so that random tokens become text and the same tokens again.

    marks: further special tokens, such as those that a parser of answers looks for.
    """
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *marks]
    words = [*special, *(f"w{number}" for number in range(len(special), VOCABULARY))]
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    whole = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": word, **added} for number, word in enumerate(special)],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: n for n, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
    names = {f"{word[1:-1]}_token": word for word in special[:4]}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072, **names})
    )


def use() -> None:
    """Let --load-format dummy fill with these; a plugin of vLLM, because a server has several processes."""
    from vllm.model_executor.model_loader import dummy_loader  # noqa: PLC0415  vLLM is being imported itself

    dummy_loader.initialize_dummy_weights = fill


def write_plugin(folder: Path) -> None:
    """Write a plugin by which vLLM calls `use` in each process; PYTHONPATH must have `folder` and the checkout."""
    found = folder / "random_weights-0.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: random-weights\nVersion: 0\n")
    (found / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nrandom_weights = validation.gpu.random_weights:use\n"
    )
