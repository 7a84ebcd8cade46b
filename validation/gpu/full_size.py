"""Write checkpoints of the released sizes: a text-only Gemma 4 31B in NVFP4_AWQ, its assistant, and a lock for both.

The values are random, but every model of this kind repeats its last token (random_weights.py), and the assistant
drafts it. So an endpoint answers with words, and all drafts are accepted. The files have the names and hashes of a
deckard.lock, so that `up` verifies them as it verifies those of the hub.

    python3 -m validation.gpu.full_size STATE LOCK [--layers 60] [--small]

STATE is the state directory; its folder `models` gets deckard-31b and gemma-4-31b-assistant. With --small the shapes
are those that a CPU runs.
"""

# torch is in the engine's environment, not beside the tools.
# mypy: ignore-errors

import argparse
import hashlib
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from deckard_deploy.catalog import library
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.manifest import Manifest, RemoteFile
from validation.gpu import random_weights

TARGET, ASSISTANT = "deckard-31b", "gemma-4-31b-assistant"
SHARD_BYTES = 4_500_000_000
# Nobody's commit: the values are random.
COMMIT = "0" * 39 + "1"
DTYPES = {torch.uint8: "U8", torch.float8_e4m3fn: "F8_E4M3", torch.float32: "F32", torch.bfloat16: "BF16"}
# A word at the end, because the models repeat their last token.
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}w500"
# What vLLM's parser of Gemma 4's answers looks for (vllm/tokenizers and parsers named gemma4)
MARKS = (
    "<|turn>",
    "<turn|>",
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|think|>",
    '<|"|>',
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Tensors = Iterator[tuple[str, torch.Tensor]]


def write(state: Path, lock: Path, *, layers: int, small: bool) -> None:
    """Write both checkpoints below `state` and their hashes to `lock`."""
    shape = "small" if small else "31b"
    random_weights.SHAPES[shape]["num_hidden_layers"] = layers
    target, assistant = state / "models" / TARGET, state / "models" / ASSISTANT
    random_weights.write_config(target, shape, "NVFP4_AWQ")
    embedding = _write_folder(target, target_tensors(random_weights.SHAPES[shape]))
    random_weights.write_assistant(assistant, target)
    for folder in (target, assistant):
        _name_attention(folder / "config.json", random_weights.SHAPES[shape])
    _write_folder(assistant, assistant_tensors(assistant, embedding))
    manifests = {}
    for folder in (target, assistant):
        manifests[folder.name] = _manifest(folder)
    lockfile.write(lock, lockfile.Lock(models=manifests))


def _name_attention(file: Path, shape: dict[str, int]) -> None:
    """Write the sizes of the full layers as the released config.json does; newer transformers save them by layer."""
    config = json.loads(file.read_text())
    text = config.get("text_config", config)
    text.pop("per_layer_config", None)
    for key in ("num_global_key_value_heads", "attention_k_eq_v"):
        if key in shape:
            text[key] = shape[key]
    text["head_dim"] = shape.get("head_dim", 256)
    text["global_head_dim"] = shape.get("global_head_dim", 512)
    file.write_text(json.dumps(config))


def _write_folder(folder: Path, tensors: Tensors) -> torch.Tensor:
    """Write the tensors in shards, a tokenizer and a template. Return the embedding."""
    random_weights.write_tokenizer(folder, MARKS)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text("{}")
    weight_map: dict[str, str] = {}
    shard: list[tuple[str, torch.Tensor]] = []
    embedding, size, number = None, 0, 1
    for name, tensor in tensors:
        if name == "model.embed_tokens.weight":
            embedding = tensor
        shard.append((name, tensor.cpu()))
        size += tensor.nbytes
        if size > SHARD_BYTES:
            weight_map |= _write_shard(folder / f"model-{number:05d}.safetensors", shard)
            shard, size, number = [], 0, number + 1
    weight_map |= _write_shard(folder / f"model-{number:05d}.safetensors", shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return embedding


def _write_shard(file: Path, shard: list[tuple[str, torch.Tensor]]) -> dict[str, str]:
    header, offset = {}, 0
    for name, tensor in shard:
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in shard:
            stream.write(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
    return {name: file.name for name, _ in shard}


def target_tensors(shape: dict[str, int]) -> Tensors:
    """Yield what vLLM's Gemma4ForCausalLM reads, with the names that ModelOpt exports."""
    hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    yield "model.embed_tokens.weight", (_normal(random_weights.VOCABULARY, hidden) * 0.04).bfloat16()
    for number in range(shape["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        full = number % 6 == 5
        size = shape.get("global_head_dim", 512) if full else shape.get("head_dim", 256)
        pairs = shape["num_key_value_heads"]
        if full:
            pairs = shape.get("num_global_key_value_heads", pairs)
        yield from _linear(f"{layer}self_attn.q_proj", heads * size, hidden)
        yield from _linear(f"{layer}self_attn.k_proj", pairs * size, hidden)
        if not (full and shape.get("attention_k_eq_v")):
            yield from _linear(f"{layer}self_attn.v_proj", pairs * size, hidden)
        yield from _linear(f"{layer}self_attn.o_proj", hidden, heads * size, scaled=True)
        yield from _linear(f"{layer}mlp.gate_proj", inner, hidden)
        yield from _linear(f"{layer}mlp.up_proj", inner, hidden)
        yield from _linear(f"{layer}mlp.down_proj", hidden, inner, scaled=True)
        yield f"{layer}self_attn.q_norm.weight", _constant(size, 0.3)
        yield f"{layer}self_attn.k_norm.weight", _constant(size, 0.3)
        for norm in ("input_layernorm", "pre_feedforward_layernorm"):
            yield f"{layer}{norm}.weight", _constant(hidden, 1.0)
        for norm in ("post_attention_layernorm", "post_feedforward_layernorm"):
            yield f"{layer}{norm}.weight", _constant(hidden, 0.3)
        yield f"{layer}layer_scalar", _constant(1, 1.0)
    yield "model.norm.weight", _constant(hidden, 1.0)


def _linear(name: str, rows: int, columns: int, *, scaled: bool = False) -> Tensors:
    yield f"{name}.weight", torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, device=DEVICE)
    scale = torch.rand(rows, columns // 16, device=DEVICE) + 0.5
    yield f"{name}.weight_scale", scale.to(torch.float8_e4m3fn)
    yield f"{name}.weight_scale_2", torch.tensor(0.005)
    yield f"{name}.input_scale", torch.tensor(0.005)
    if scaled:
        yield f"{name}.pre_quant_scale", (torch.rand(columns, device=DEVICE) + 0.5).bfloat16()


def _normal(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, device=DEVICE, dtype=torch.bfloat16)


def _constant(size: int, value: float) -> torch.Tensor:
    return torch.full((size,), value, dtype=torch.bfloat16)


def assistant_tensors(folder: Path, embedding: torch.Tensor) -> Tensors:
    """Yield the assistant's tensors: it repeats the last token, as mtp_case.repeat_last_token does it."""
    config = json.loads((folder / "config.json").read_text())["text_config"]
    hidden, inner, heads = (
        config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    backbone = embedding.shape[1]
    into = torch.zeros(hidden, 2 * backbone, device=DEVICE, dtype=torch.bfloat16)
    into[:, :backbone] = _normal(hidden, backbone) * 0.02
    yield "pre_projection.weight", into
    yield "post_projection.weight", _normal(backbone, hidden) * 0.02
    yield "model.embed_tokens.weight", _normal(len(embedding), hidden) * 0.04
    yield "lm_head.weight", embedding @ into[:, :backbone].T
    for number, kind in enumerate(config["layer_types"]):
        layer = f"model.layers.{number}."
        size = config["global_head_dim"] if kind == random_weights.FULL else config["head_dim"]
        yield f"{layer}self_attn.q_proj.weight", _normal(heads * size, hidden) * 0.02
        yield f"{layer}self_attn.o_proj.weight", _normal(hidden, heads * size) * 0.02
        yield f"{layer}mlp.gate_proj.weight", _normal(inner, hidden) * 0.02
        yield f"{layer}mlp.up_proj.weight", _normal(inner, hidden) * 0.02
        yield f"{layer}mlp.down_proj.weight", _normal(hidden, inner) * 0.02
        yield f"{layer}self_attn.q_norm.weight", _constant(size, 0.3)
        yield f"{layer}layer_scalar", _constant(1, 1.0)
        for norm in ("input_layernorm", "pre_feedforward_layernorm"):
            yield f"{layer}{norm}.weight", _constant(hidden, 1.0)
        for norm in ("post_attention_layernorm", "post_feedforward_layernorm"):
            yield f"{layer}{norm}.weight", _constant(hidden, 0.3)
    yield "model.norm.weight", _constant(hidden, 1.0)


def _manifest(folder: Path) -> Manifest:
    files = []
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files.append(RemoteFile(path=file.name, size=file.stat().st_size, sha256=digest))
    return Manifest(repo=library.model(folder.name).weights.repo, commit=COMMIT, files=tuple(files))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--small", action="store_true", help="shapes that a CPU runs")
    args = parser.parse_args()
    started = time.monotonic()
    write(args.state, args.lock, layers=args.layers, small=args.small)
    print(f"written in {time.monotonic() - started:.0f} s")
