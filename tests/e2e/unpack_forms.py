"""Unpack published forms in the engine's Python: folders on argv, the largest error of each as JSON on stdout.

The weights of the first folder, which is in BF16, are compared with what each other folder gives: a form of
compressed-tensors by the decompression of that library; GPTQ and AWQ by the layout that vLLM's loaders describe. An
error is a share of the largest weight of its row of the linear.
"""

# vLLM, torch and compressed-tensors are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import sys
from pathlib import Path

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file

AWQ_REVERSE = (0, 4, 1, 5, 2, 6, 3, 7)  # vLLM 0.32.0 auto_awq.py: the place of each column in a word


def linears(tensors: dict, part: str) -> dict:
    """Return the tensors of each linear, by its name."""
    found = {}
    for name in tensors:
        if name.endswith(f".{part}") and "language_model.layers" in name and "proj" in name:
            linear = name.removesuffix(f".{part}")
            found[linear] = {
                key.removeprefix(f"{linear}."): value
                for key, value in tensors.items()
                if key.startswith(f"{linear}.")
            }
    return found


def nibbles(words: torch.Tensor) -> torch.Tensor:
    """Return the eight codes of each word along a new last dimension, the lowest first."""
    return (words.to(torch.int64)[..., None] >> (torch.arange(8) * 4)) & 15


def gptq(parts: dict) -> torch.Tensor:
    codes = nibbles(parts["qweight"]).transpose(1, 2).reshape(-1, parts["qweight"].shape[1])
    zeros = nibbles(parts["qzeros"]).flatten(1) + 1
    groups = parts["g_idx"].long()
    return ((codes - zeros[groups]) * parts["scales"].float()[groups]).t()


def awq(parts: dict) -> torch.Tensor:
    codes = nibbles(parts["qweight"])[..., AWQ_REVERSE].flatten(1)
    zeros = nibbles(parts["qzeros"])[..., AWQ_REVERSE].flatten(1)
    groups = torch.arange(codes.shape[0]) // (codes.shape[0] // zeros.shape[0])
    return ((codes - zeros[groups]) * parts["scales"].float()[groups]).t()


def compressed(parts: dict, config: dict) -> torch.Tensor:
    group = config["config_groups"]["group_0"]
    scheme = QuantizationScheme(
        targets=group["targets"], weights=group["weights"], input_activations=group["input_activations"]
    )
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    return compressor.decompress(parts, scheme)["weight"].float()


def largest_error(exact: dict, folder: Path) -> float:
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    tensors = load_file(folder / "model.safetensors")
    method = config["quant_method"]
    marker = {"gptq": "qweight", "awq": "qweight"}.get(method, "weight_scale")
    worst = 0.0
    found = linears(tensors, marker)
    assert len(found) == 41, len(found)
    for name, parts in found.items():
        unpacked = (
            {"gptq": gptq, "awq": awq}[method](parts) if marker == "qweight" else compressed(parts, config)
        )
        weight = exact[f"{name}.weight"].float()
        assert unpacked.shape == weight.shape
        # A scale belongs to a row or to a part of it.
        worst = max(worst, float(((unpacked - weight).abs().amax(1) / weight.abs().amax(1)).max()))
    return worst


if __name__ == "__main__":
    first, *others = map(Path, sys.argv[1:])
    exact = load_file(first / "model.safetensors")
    print(json.dumps({folder.name: largest_error(exact, folder) for folder in others}))
