"""Checkpoints with the shapes of Gemma 4 31B and E4B, real headers and no data: the files are holes.

Numbers: config.json of Gemma 4 31B and E4B. Layout: ModelOpt 0.42.0 (see weights/linears.py). The audio tower
of E4B is left out: its inner sizes are not known here.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.rehearsal.nvfp4 import quantization_config
from deckard_deploy.weights.safetensors_header import BITS

VOCABULARY = 262144
# The files next to the weights: empty ones.
OTHER_FILES = {"tokenizer.json": "{}", "chat_template.jinja": "{{ messages }}", "processor_config.json": "{}"}
Entry = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class Shapes:
    layers: int
    every: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    full_kv_heads: int
    k_eq_v: bool
    vision: tuple[int, int, int]
    per_layer_input: int = 0
    window: int = 1024
    shared: int = 0
    context: int = 262144


BIG = Shapes(60, 6, 5376, 21504, 32, 16, 4, k_eq_v=True, vision=(27, 1152, 4304))
SMALL = Shapes(
    42,
    6,
    2560,
    10240,
    8,
    2,
    2,
    k_eq_v=False,
    vision=(16, 768, 3072),
    per_layer_input=256,
    window=512,
    shared=18,
    context=131072,
)


def write(folder: Path, shapes: Shapes, *, shards: int = 5) -> Path:
    folder.mkdir(parents=True)
    outer, inner = quantization_config("nvfp4_awq")
    (folder / "config.json").write_text(json.dumps(config(shapes) | {"quantization_config": inner}))
    (folder / "hf_quant_config.json").write_text(json.dumps(outer))
    for name, text in OTHER_FILES.items():
        (folder / name).write_text(text)
    entries = list(tensors(shapes))
    weight_map: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        mine = entries[number * len(entries) // shards : (number + 1) * len(entries) // shards]
        write_holes(folder / name, mine)
        weight_map |= {entry[0]: name for entry in mine}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_holes(path: Path, entries: list[Entry]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in entries:
        size = BITS[dtype] // 8
        for count in shape:
            size *= count
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)


def kinds(shapes: Shapes) -> list[str]:
    pattern = ["sliding_attention"] * (shapes.every - 1) + ["full_attention"]
    # E4B has 42 layers: x7 of 5 sliding and a full one; 31B has 60.
    return (pattern * shapes.layers)[: shapes.layers]


def config(shapes: Shapes) -> dict[str, Any]:
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "text_config": {
            "vocab_size": VOCABULARY,
            "hidden_size": shapes.hidden,
            "intermediate_size": shapes.intermediate,
            "num_hidden_layers": shapes.layers,
            "layer_types": kinds(shapes),
            "num_attention_heads": shapes.heads,
            "num_key_value_heads": shapes.kv_heads,
            "num_global_key_value_heads": shapes.full_kv_heads if shapes.k_eq_v else None,
            "head_dim": 256,
            "global_head_dim": 512,
            "attention_k_eq_v": shapes.k_eq_v,
            "sliding_window": shapes.window,
            "num_kv_shared_layers": shapes.shared,
            "hidden_size_per_layer_input": shapes.per_layer_input,
            "max_position_embeddings": shapes.context,
        },
        "vision_config": {"num_hidden_layers": shapes.vision[0]},
    }


def tensors(shapes: Shapes) -> Iterator[Entry]:
    root = "model.language_model."
    yield f"{root}embed_tokens.weight", "BF16", (VOCABULARY, shapes.hidden)
    if shapes.per_layer_input:
        width = shapes.layers * shapes.per_layer_input
        yield f"{root}embed_tokens_per_layer.weight", "BF16", (VOCABULARY, width)
        yield f"{root}per_layer_model_projection.weight", "BF16", (width, shapes.hidden)
    for number, kind in enumerate(kinds(shapes)):
        yield from _layer(f"{root}layers.{number}.", shapes, full=kind == "full_attention")
    yield from _vision(shapes)


def _layer(prefix: str, shapes: Shapes, *, full: bool) -> Iterator[Entry]:
    size, kv_heads = (512, shapes.full_kv_heads) if full else (256, shapes.kv_heads)
    hidden, inner = shapes.hidden, shapes.intermediate
    linears = {
        "self_attn.q_proj": (shapes.heads * size, hidden),
        "self_attn.k_proj": (kv_heads * size, hidden),
        "self_attn.v_proj": (kv_heads * size, hidden),
        "self_attn.o_proj": (hidden, shapes.heads * size),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    if full and shapes.k_eq_v:
        del linears["self_attn.v_proj"]
    for name, (rows, columns) in linears.items():
        yield f"{prefix}{name}.weight", "U8", (rows, columns // 2)
        yield f"{prefix}{name}.weight_scale", "F8_E4M3", (rows, columns // 16)
        yield f"{prefix}{name}.weight_scale_2", "F32", ()
        yield f"{prefix}{name}.input_scale", "F32", ()
        if name.endswith(("o_proj", "down_proj")):
            yield f"{prefix}{name}.pre_quant_scale", "BF16", (columns,)
    for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
        yield f"{prefix}{norm}_layernorm.weight", "BF16", (hidden,)
    if shapes.per_layer_input:
        yield f"{prefix}per_layer_input_gate.weight", "BF16", (shapes.per_layer_input, hidden)
        yield f"{prefix}per_layer_projection.weight", "BF16", (hidden, shapes.per_layer_input)


def _vision(shapes: Shapes) -> Iterator[Entry]:
    layers, hidden, inner = shapes.vision
    root = "model.vision_tower."
    yield f"{root}patch_embedder.input_proj.weight", "BF16", (hidden, 3 * 16 * 16)
    yield f"{root}patch_embedder.position_embedding_table", "BF16", (2, 10240, hidden)
    yield "model.embed_vision.embedding_projection.weight", "BF16", (shapes.hidden, hidden)
    for number in range(layers):
        prefix = f"{root}encoder.layers.{number}."
        for name in "qkvo":
            yield f"{prefix}self_attn.{name}_proj.linear.weight", "BF16", (hidden, hidden)
        yield f"{prefix}mlp.gate_proj.linear.weight", "BF16", (inner, hidden)
        yield f"{prefix}mlp.up_proj.linear.weight", "BF16", (inner, hidden)
        yield f"{prefix}mlp.down_proj.linear.weight", "BF16", (hidden, inner)
