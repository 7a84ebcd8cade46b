"""Write a tiny Gemma 4 checkpoint that follows a script, for rehearsals of a deployment without the real weights.

The architecture is the real one, Gemma4ForConditionalGeneration: five sliding layers and a full one with other head
sizes and k_eq_v, a vision tower, softcapped logits. What it says is in `tiny_script`, why it says it in `tiny_layers`,
how it is packed to 4 bits in `nvfp4`. Differences from the real model: lm_head is not tied to the embedding, there
are no merges in the tokenizer, and head sizes are 64/128 because vLLM's CPU attention has none of 512
(vLLM 0.19.1 v1/attention/backends/cpu_attn.py:41).
"""

import json
from pathlib import Path
from typing import Literal

from deckard_deploy.rehearsal import folder as tiny_folder
from deckard_deploy.rehearsal import layers, nvfp4
from deckard_deploy.rehearsal import layers as net
from deckard_deploy.rehearsal.script import BOS, EOS, TURN_END
from deckard_deploy.rehearsal.tokenizer import (
    CHAT_TEMPLATE,
    VOCABULARY_SIZE,
    tokenizer_config,
    tokenizer_json,
    vocabulary,
)

Quantization = Literal["none", "nvfp4", "nvfp4_awq", "nvfp4_svd"]

GENERATOR_VERSION = 2
CONTEXT_TOKENS = 4096


def write(folder: Path, *, quantization: Quantization = "none") -> Path:
    """Write the checkpoint to `folder` (3 to 8 MB) and return it; an earlier, complete one is left as it is.

    One that another version of this generator wrote, or with another quantization, is replaced. Raises as
    tiny_folder.have does.
    """
    what = {"generator_version": GENERATOR_VERSION, "quantization": quantization}
    return tiny_folder.have(folder, what, lambda fresh: _write_files(fresh, quantization))


def _write_files(folder: Path, quantization: Quantization) -> None:

    texts = {
        "config.json": _config(),
        "generation_config.json": _generation_config(),
        "processor_config.json": _processor_config(),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": tokenizer_config(CONTEXT_TOKENS),
    }
    if quantization != "none":
        texts["hf_quant_config.json"], texts["config.json"]["quantization_config"] = (
            nvfp4.quantization_config(quantization)
        )
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    _write_tensors(folder / "model.safetensors", quantization)


def _write_tensors(file: Path, quantization: Quantization) -> None:
    import ml_dtypes  # noqa: PLC0415
    from safetensors.numpy import save_file  # noqa: PLC0415

    exact = layers.all_tensors()
    if quantization == "none":
        tensors = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in exact.items()}
    else:
        tensors = nvfp4.quantize(exact, quantization)
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes it 0600, but the user of a container reads it too


def _config() -> dict[str, object]:
    """`config.json` with the keys that transformers 5.6.2 saves for Gemma4Config, defaults left out."""
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
        "text_config": text_config(),
        "vision_config": _vision_config(),
    }


def text_config() -> dict[str, object]:

    ids = vocabulary()
    return {
        "model_type": "gemma4_text",
        "vocab_size": VOCABULARY_SIZE,
        "vocab_size_per_layer_input": VOCABULARY_SIZE,
        "hidden_size": net.HIDDEN,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": net.INTERMEDIATE,
        "num_hidden_layers": net.LAYERS,
        "layer_types": ["sliding_attention"] * net.FULL_LAYER + ["full_attention"],
        "num_attention_heads": net.HEADS,
        "num_key_value_heads": net.SLIDING_KV_HEADS,
        "num_global_key_value_heads": net.FULL_KV_HEADS,
        "head_dim": net.SLIDING_HEAD_SIZE,
        "global_head_dim": net.FULL_HEAD_SIZE,
        "attention_k_eq_v": True,
        "attention_bias": False,
        "num_kv_shared_layers": 0,
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
        "enable_moe_block": False,
        "pad_token_id": ids["<pad>"],
        "eos_token_id": ids[EOS],
        "bos_token_id": ids[BOS],
    }


def _vision_config() -> dict[str, object]:

    return {
        "model_type": "gemma4_vision",
        "hidden_size": net.VISION_HIDDEN,
        "intermediate_size": net.VISION_INTERMEDIATE,
        "num_hidden_layers": net.VISION_LAYERS,
        "num_attention_heads": net.VISION_HEADS,
        "num_key_value_heads": net.VISION_HEADS,
        "head_dim": net.VISION_HIDDEN // net.VISION_HEADS,
        "position_embedding_size": net.VISION_POSITIONS,
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "default_output_length": 280,  # soft tokens per image
    }


def _generation_config() -> dict[str, object]:
    """top_k 1 keeps to the script at any temperature: vLLM takes it as the default of every request."""
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
