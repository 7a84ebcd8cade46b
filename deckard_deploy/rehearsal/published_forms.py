"""The packing of a checkpoint's language-model linears to the 4-bit and 8-bit forms in which others publish models.

    ct-nvfp4   compressed-tensors, nvfp4-pack-quantized: the codes and block scales of ModelOpt's NVFP4 (nvfp4.py), with
               weight_global_scale and input_global_scale as divisors
    ct-fp8     compressed-tensors, float-quantized: weight float8_e4m3fn [out, in], weight_scale [out, 1]
    ct-w4a16   compressed-tensors, pack-quantized: weight_packed int32 [out, in / 8], the first column in the lowest
               four bits, weight_scale [out, in / 128], weight_shape
    gptq       qweight int32 [in / 8, out], scales float16 [in / 128, out], qzeros int32 [in / 128, out / 8] with the
               zero point less one, g_idx int32 [in]
    awq        qweight int32 [in, out / 8] and qzeros int32 [in / 128, out / 8] with the columns of eight in AWQ's
               order, scales float16 [in / 128, out]

Sources: compressed-tensors 0.17.0, compressors/*/base.py and helpers.py; vLLM 0.32.0,
model_executor/layers/quantization/auto_gptq.py, auto_awq.py and utils/quant_utils.py. The end-to-end test
tests/e2e/test_published_forms.py unpacks each with the code of compressed-tensors and of vLLM.
"""

from collections.abc import Iterator
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from deckard_deploy.rehearsal import nvfp4
from deckard_deploy.rehearsal.layers import FORMS
from deckard_deploy.rehearsal.nvfp4 import Floats

Layout = Literal["ct-nvfp4", "ct-fp8", "ct-w4a16", "gptq", "awq"]
LAYOUTS: tuple[Layout, ...] = ("ct-nvfp4", "ct-fp8", "ct-w4a16", "gptq", "awq")
Packed = dict[str, NDArray[Any]]

GROUP_SIZE = 128
_LARGEST_FP8 = 448.0
_ZERO = 8  # of unsigned codes of four bits
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the column of each four bits of a word, from the lowest on
_IGNORED = ["lm_head", "re:.*vision_tower.*", "re:.*embed_vision.*"]


def quantization_config(layout: Layout) -> dict[str, object]:
    """Return `quantization_config` of config.json, with the keys that its producer writes."""
    if layout == "gptq":
        return {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP_SIZE,
            "desc_act": False,
            "sym": True,
            "lm_head": False,
            "checkpoint_format": "gptq",
            # Without it vLLM 0.32.0 takes the names from the tensors (auto_gptq.py, maybe_update_config), and refuses
            # the v_proj that a layer with attention_k_eq_v does not have.
            "modules_in_block_to_quantize": [list(_linears())],
        }
    if layout == "awq":
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP_SIZE,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": ["lm_head", "vision_tower", "embed_vision"],
        }
    return {"quant_method": "compressed-tensors", "quantization_status": "compressed", **_compressed(layout)}


def _linears() -> Iterator[str]:
    """Yield the name of each linear of the language model, of those that are their neighbour's copy too."""
    for layer in range(FORMS["dense"].layers):
        prefix = f"model.language_model.layers.{layer}."
        yield from (f"{prefix}self_attn.{side}_proj" for side in "qkvo")
        yield from (f"{prefix}mlp.{name}_proj" for name in ("gate", "up", "down"))


def _compressed(layout: Layout) -> dict[str, object]:
    """Return format and group of a form of compressed-tensors (quantization/quant_scheme.py, the presets)."""
    weights: dict[str, object] = {"symmetric": True, "dynamic": False}
    inputs: dict[str, object] | None = None
    if layout == "ct-nvfp4":
        named = "nvfp4-pack-quantized"
        common = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": nvfp4.GROUP_SIZE}
        weights |= common
        inputs = {**common, "symmetric": True, "dynamic": "local"}
    elif layout == "ct-fp8":
        named = "float-quantized"
        weights |= {"num_bits": 8, "type": "float", "strategy": "channel"}
        inputs = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
    else:
        named = "pack-quantized"
        weights |= {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP_SIZE}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "format": named}
    return {"format": named, "config_groups": {"group_0": group}, "ignore": _IGNORED}


def quantize(tensors: dict[str, Floats], layout: Layout) -> Packed:
    """Return the tensors of the packed checkpoint; those that are not packed are in bfloat16."""
    if layout == "ct-nvfp4":
        return _with_divisors(nvfp4.quantize(tensors, "nvfp4"))
    packed: Packed = {}
    for name, tensor in tensors.items():
        linear = name.removesuffix(".weight")
        if "language_model.layers" in name and linear.endswith("_proj"):
            for part, value in _pack(tensor, layout).items():
                packed[f"{linear}.{part}"] = np.ascontiguousarray(value)
        else:
            packed[name] = tensor.astype(ml_dtypes.bfloat16)
    return packed


def _with_divisors(packed: Packed) -> Packed:
    """Return ModelOpt's tensors under the names of compressed-tensors."""
    renamed: Packed = {}
    for name, tensor in packed.items():
        linear, _, part = name.rpartition(".")
        if part in ("weight_scale_2", "input_scale"):
            divisor = {"weight_scale_2": "weight_global_scale", "input_scale": "input_global_scale"}[part]
            renamed[f"{linear}.{divisor}"] = (np.float32(1) / tensor).reshape(1)
        elif tensor.dtype == np.uint8:
            renamed[f"{linear}.weight_packed"] = tensor
        else:
            renamed[name] = tensor
    return renamed


def _pack(weight: Floats, layout: Layout) -> Packed:
    if layout == "ct-fp8":
        scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(_LARGEST_FP8)
        rounded = scale.astype(ml_dtypes.bfloat16)
        exact = weight / rounded.astype(np.float32)
        codes = exact.clip(-_LARGEST_FP8, _LARGEST_FP8).astype(ml_dtypes.float8_e4m3fn)
        return {"weight": codes, "weight_scale": rounded}
    dtype: Any = ml_dtypes.bfloat16 if layout == "ct-w4a16" else np.float16
    codes, scales = codes_and_scales(weight, dtype)
    if layout == "ct-w4a16":
        shape = np.asarray(weight.shape, np.int64)
        return {"weight_packed": _words(codes), "weight_scale": scales, "weight_shape": shape}
    zeros = np.full((scales.shape[1], weight.shape[0]), _ZERO, np.uint32)
    if layout == "gptq":
        groups = np.arange(weight.shape[1], dtype=np.int32) // GROUP_SIZE
        return {
            "qweight": _words(codes).T,
            "qzeros": _words(zeros - 1),
            "scales": scales.T,
            "g_idx": groups,
        }
    return {"qweight": _words(_awq(codes.T)), "qzeros": _words(_awq(zeros)), "scales": scales.T}


def codes_and_scales(weight: Floats, dtype: Any) -> tuple[NDArray[np.uint32], NDArray[Any]]:  # noqa: ANN401  numpy's
    """Return codes [out, in] from 0 to 15, of which 8 is zero, and scales [out, in / 128] for a weight [out, in]."""
    groups = weight.reshape(weight.shape[0], -1, GROUP_SIZE)
    largest = np.abs(groups).max(axis=-1) / np.float32(_ZERO - 1)
    scales = np.where(largest == 0, 1, largest).astype(dtype)
    steps = np.rint(groups / scales.astype(np.float32)[..., None]).clip(-_ZERO, _ZERO - 1)
    codes: NDArray[np.uint32] = (steps.reshape(weight.shape) + _ZERO).astype(np.uint32)
    return codes, scales


def _words(codes: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Pack eight codes of a row into a word, the first in the lowest four bits."""
    shifts = np.arange(8, dtype=np.uint32) * 4
    words: NDArray[np.int32] = (
        (codes.reshape(codes.shape[0], -1, 8) << shifts).sum(axis=-1, dtype=np.uint32).view(np.int32)
    )
    return words


def _awq(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the columns of each eight in AWQ's order."""
    columns = codes.reshape(codes.shape[0], -1, 8)[..., list(_AWQ_ORDER)]
    return columns.reshape(codes.shape)
