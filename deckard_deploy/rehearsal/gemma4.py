"""A tiny Gemma 4 checkpoint that follows a script, for rehearsals of a deployment without the real weights.

The architecture is the real one, Gemma4ForConditionalGeneration: five sliding layers and a full one with
other head sizes and k_eq_v, a vision tower, softcapped logits. The text is in `script`, the network that
generates it in `layers`, its packing to 4 bits in `nvfp4`. Differences from the real model: lm_head is not
tied to the embedding, the tokenizer has no merges, and the head sizes are 64 and 128, because vLLM's CPU
attention does not support 512 (vLLM 0.19.1 v1/attention/backends/cpu_attn.py:41).
"""

import json
from pathlib import Path
from typing import Literal

import ml_dtypes
from safetensors.numpy import save_file

from deckard_deploy.rehearsal import layers, nvfp4, published_forms
from deckard_deploy.rehearsal.folder import ensure_generated
from deckard_deploy.rehearsal.script import BOS, EOS, TURN_END
from deckard_deploy.rehearsal.tokenizer import (
    VOCABULARY_SIZE,
    Family,
    chat_template,
    tokenizer_config,
    tokenizer_json,
    vocabulary,
)

Quantization = Literal["none", "nvfp4", "nvfp4_awq", "nvfp4_svd"] | published_forms.Layout

_MODELOPT: dict[str, nvfp4.Layout] = {"nvfp4": "nvfp4", "nvfp4_awq": "nvfp4_awq", "nvfp4_svd": "nvfp4_svd"}
_PUBLISHED: dict[str, published_forms.Layout] = {layout: layout for layout in published_forms.LAYOUTS}

GENERATOR_VERSION = 3
CONTEXT_TOKENS = 4096


def write(
    folder: Path,
    *,
    quantization: Quantization = "none",
    family: Family = "large",
    form: layers.FormName = "dense",
) -> Path:
    """Write the checkpoint (3 to 20 MB) to `folder` and return the folder; a complete one stays.

    family: of Gemma 4, whose chat template this one follows (`tokenizer.chat_template`). form: a dense model, a
    mixture of experts as 26B-A4B, or per-layer embeddings and shared KV layers as E4B; only a dense one is packed to
    4 bits. A checkpoint of another generator version, quantization, family or form is replaced. Raises as
    ensure_generated does.
    """
    if form != "dense" and quantization != "none":
        raise ValueError(f"the form {form} is written in BF16 alone")
    description: dict[str, object] = {
        "generator_version": GENERATOR_VERSION,
        "quantization": quantization,
        "family": family,
    }
    if form != "dense":
        description["form"] = form
    return ensure_generated(
        folder, description, lambda fresh: _write_files(fresh, quantization, family, form)
    )


def _write_files(
    folder: Path, quantization: Quantization, family: Family, form_name: layers.FormName
) -> None:
    form = layers.FORMS[form_name]
    texts = {
        "config.json": _config(form),
        "generation_config.json": _generation_config(),
        "processor_config.json": _processor_config(),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": tokenizer_config(CONTEXT_TOKENS),
    }
    published, modelopt = _PUBLISHED.get(quantization), _MODELOPT.get(quantization)
    if published:
        texts["config.json"]["quantization_config"] = published_forms.quantization_config(published)
    elif modelopt:
        hf_quant_config, quantization_config = nvfp4.quantization_config(modelopt)
        texts["hf_quant_config.json"] = hf_quant_config
        texts["config.json"]["quantization_config"] = quantization_config
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(chat_template(family))
    _write_tensors(folder / "model.safetensors", quantization, form)


def _write_tensors(file: Path, quantization: Quantization, form: layers.Form) -> None:
    exact = layers.all_tensors(form)
    published, modelopt = _PUBLISHED.get(quantization), _MODELOPT.get(quantization)
    if published:
        tensors = published_forms.quantize(exact, published)
    elif modelopt:
        tensors = nvfp4.quantize(exact, modelopt)
    else:
        tensors = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in exact.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors creates it with 0600, but the user of a container must read it


def _config(form: layers.Form) -> dict[str, object]:
    """Return `config.json` with the keys that transformers 5.6.2 saves for Gemma4Config, without defaults."""
    ids = vocabulary()
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "image_token_id": ids["<|image|>"],
        "boi_token_id": ids["<|image>"],
        "eoi_token_id": ids["<image|>"],
        "video_token_id": ids["<|video|>"],
        "audio_token_id": ids["<|audio|>"],
        "boa_token_id": ids["<|audio>"],
        "eoa_token_index": ids["<audio|>"],
        "audio_config": None,
        "text_config": text_config(form),
        "vision_config": _vision_config(),
    }


def text_config(form: layers.Form = layers.FORMS["dense"]) -> dict[str, object]:
    """Return the `text_config` of config.json."""
    ids = vocabulary()
    kinds = ["full_attention" if form.is_full(layer) else "sliding_attention" for layer in range(form.layers)]
    experts: dict[str, object] = {"enable_moe_block": False}
    if form.experts:
        experts = {
            "enable_moe_block": True,
            "num_experts": form.experts,
            "top_k_experts": layers.EXPERTS_PER_TOKEN,
            "moe_intermediate_size": layers.EXPERT_INTERMEDIATE,
        }
    return {
        "model_type": "gemma4_text",
        "vocab_size": VOCABULARY_SIZE,
        "vocab_size_per_layer_input": VOCABULARY_SIZE,
        "hidden_size": layers.HIDDEN,
        "hidden_size_per_layer_input": form.per_layer,
        "intermediate_size": layers.INTERMEDIATE,
        "num_hidden_layers": form.layers,
        "layer_types": kinds,
        "num_attention_heads": layers.HEADS,
        "num_key_value_heads": layers.SLIDING_KV_HEADS,
        "num_global_key_value_heads": layers.FULL_KV_HEADS if form.k_eq_v else None,
        "head_dim": layers.SLIDING_HEAD_SIZE,
        "global_head_dim": layers.FULL_HEAD_SIZE,
        "attention_k_eq_v": form.k_eq_v,
        "attention_bias": False,
        "num_kv_shared_layers": form.shared,
        "sliding_window": 64,
        "use_bidirectional_attention": None,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": False,
        **experts,
        "pad_token_id": ids["<pad>"],
        "eos_token_id": ids[EOS],
        "bos_token_id": ids[BOS],
    }


def _vision_config() -> dict[str, object]:
    return {
        "model_type": "gemma4_vision",
        "hidden_size": layers.VISION_HIDDEN,
        "intermediate_size": layers.VISION_INTERMEDIATE,
        "num_hidden_layers": layers.VISION_LAYERS,
        "num_attention_heads": layers.VISION_HEADS,
        "num_key_value_heads": layers.VISION_HEADS,
        "head_dim": layers.VISION_HIDDEN // layers.VISION_HEADS,
        "position_embedding_size": layers.VISION_POSITIONS,
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "default_output_length": 280,  # soft tokens per image
    }


def _generation_config() -> dict[str, object]:
    """Return `generation_config.json`.

    vLLM uses its top_k 1 as the default of every request, so the temperature has no effect.
    """
    ids = vocabulary()
    return {
        "bos_token_id": ids[BOS],
        "pad_token_id": ids["<pad>"],
        "eos_token_id": [ids[EOS], ids[TURN_END]],
        "do_sample": True,
        "top_k": 1,
    }


def _processor_config() -> dict[str, object]:
    return {
        "processor_class": "Gemma4Processor",
        "image_seq_length": 280,
        "image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 280},
        "video_processor": {"video_processor_type": "Gemma4VideoProcessor"},
        "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
    }
