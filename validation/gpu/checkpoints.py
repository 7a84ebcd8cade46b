"""Write tiny random Gemma 4 checkpoints in float32 whose greedy text tells right KV from wrong KV.

Attention is made flat (small q and k norms) and each layer's share of the residual small against the embeddings, so
that rounding does not move the argmax, while reading a wrong stretch of KV does. That makes two things exact: the
text with and without a drafter, and the acceptance of a drafter that computes the same function as its target.

Usage: python -m validation.gpu.checkpoints OUTDIR (needs torch, transformers >= 5.5, safetensors, pillow)
"""

import json
import shutil
import sys
from pathlib import Path

import torch  # type: ignore[import-not-found]
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4TextConfig,
    Gemma4VideoProcessor,
    Gemma4VisionConfig,
    PreTrainedTokenizerFast,
)

VOCABULARY = 4096
SPECIAL_TOKENS = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<|image|>", "<|image>", "<image|>"),
    *("<|audio|>", "<|audio>", "<audio|>", "<|video|>"),
)
SLIDING, FULL = "sliding_attention", "full_attention"
ROPE = {
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    SLIDING: {"rope_type": "default", "rope_theta": 1e4},
}
DENSE_LAYERS = ([SLIDING] * 5 + [FULL]) * 2
E4B_LAYERS = [*DENSE_LAYERS, SLIDING, SLIDING, FULL]  # the last six read the KV of earlier layers
HEAD_SIZE = {SLIDING: 256, FULL: 512}


def tokenizer() -> PreTrainedTokenizerFast:
    words = [*SPECIAL_TOKENS, *(f"w{number}" for number in range(len(SPECIAL_TOKENS), VOCABULARY))]
    backend = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    images = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    audio = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens={**images, **audio},
    )


def text_config(layer_types: list[str], **overrides: object) -> Gemma4TextConfig:
    settings = {
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "num_key_value_heads": 2,
        **overrides,
    }
    return Gemma4TextConfig(
        vocab_size=VOCABULARY,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=len(layer_types),
        layer_types=layer_types,
        num_attention_heads=4,
        head_dim=HEAD_SIZE[SLIDING],
        global_head_dim=HEAD_SIZE[FULL],
        sliding_window=128,
        rope_parameters=ROPE,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        **settings,
    )


def steady(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "vision" in name:
                continue
            if "embed_tokens." in name:
                weight.mul_(2)
            if any(
                part in name
                for part in ("q_norm", "k_norm", "post_attention_layer", "post_feedforward_layer")
            ):
                weight.mul_(0.3)
    return model


def save_text(folder: Path, config: Gemma4TextConfig, *, seed: int) -> None:
    torch.manual_seed(seed)
    steady(Gemma4ForCausalLM(config).float()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_multimodal(folder: Path, config: Gemma4TextConfig, *, seed: int) -> None:
    vision = Gemma4VisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        default_output_length=280,
    )
    tokens = {"image_token_id": 4, "boi_token_id": 5, "eoi_token_id": 6, "video_token_id": 10}
    tokens |= {"audio_token_id": 7, "boa_token_id": 8, "eoa_token_index": 9}
    whole = Gemma4Config(
        text_config=config, vision_config=vision, audio_config=None, tie_word_embeddings=False, **tokens
    )
    torch.manual_seed(seed)
    steady(Gemma4ForConditionalGeneration(whole).float()).save_pretrained(folder)
    if config.num_kv_shared_layers:
        add_shared_layers_norms(folder, config)
    words = tokenizer()
    features = Gemma4AudioFeatureExtractor(), Gemma4ImageProcessor(), words, Gemma4VideoProcessor()
    Gemma4Processor(*features).save_pretrained(folder)
    words.save_pretrained(folder)


def add_shared_layers_norms(folder: Path, config: Gemma4TextConfig) -> None:
    """Released E-type checkpoints carry k_norm for the layers that share KV too, and vLLM's loader expects it."""
    weights = load_file(folder / "model.safetensors")
    count = config.num_hidden_layers
    for layer in range(count - config.num_kv_shared_layers, count):
        name = f"model.language_model.layers.{layer}.self_attn.k_norm.weight"
        weights[name] = torch.ones(HEAD_SIZE[config.layer_types[layer]])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def double_kv_heads(source: Path, target: Path) -> None:
    """The same function with each KV head twice: another KV cache spec, so other groups and block sizes."""
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_text())
    text = config.get("text_config", config)
    weights = load_file(source / "model.safetensors")
    for name, weight in weights.items():
        if "vision" in name or not name.endswith(("k_proj.weight", "v_proj.weight")):
            continue
        head_size = HEAD_SIZE[text["layer_types"][int(name.split("layers.")[1].split(".")[0])]]
        heads = weight.view(-1, head_size, weight.shape[1]).repeat_interleave(2, 0)
        weights[name] = heads.reshape(-1, weight.shape[1]).contiguous()
    text["num_key_value_heads"] *= 2
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config))


def write_all(out: Path) -> None:
    save_text(out / "text", text_config(DENSE_LAYERS), seed=0)
    save_text(out / "text_stranger", text_config(DENSE_LAYERS, num_key_value_heads=4), seed=7)
    dense = text_config(DENSE_LAYERS, attention_k_eq_v=True, num_global_key_value_heads=1)
    save_multimodal(out / "mm", dense, seed=0)
    e4b = text_config(E4B_LAYERS, num_kv_shared_layers=6, hidden_size_per_layer_input=64)
    save_multimodal(out / "mm_e4b", e4b, seed=1)
    double_kv_heads(out / "text", out / "text_kv4")
    double_kv_heads(out / "mm_e4b", out / "mm_e4b_kv4")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
