"""The packing of a checkpoint's language-model linears to NVFP4, in the layouts that ModelOpt 0.42.0 exports.

    nvfp4      weights are rounded without scaling
    nvfp4_awq  inputs are first scaled per channel. o_proj and down_proj keep `pre_quant_scale`; that of the
               others is folded into the RMSNorm before them, as ModelOpt's export does for Gemma
               (export/unified_export_hf.py, export/quant_utils.py, PQS_FUSE_MODULE_MAPPING)
    nvfp4_svd  every linear keeps `pre_quant_scale`, and 32 input channels go through a 16-bit low-rank branch

A linear [out, in] becomes weight uint8 [out, in / 2] (two e2m1 codes a byte, the even column in the low
nibble), weight_scale float8_e4m3fn [out, in / 16], weight_scale_2 and input_scale float32 scalars. A weight
is code * weight_scale * weight_scale_2; an input is multiplied by pre_quant_scale [in] before it is rounded.
"""

from collections.abc import Iterator
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Layout = Literal["nvfp4", "nvfp4_awq", "nvfp4_svd"]
Floats = NDArray[np.float32]

GROUP_SIZE = 16
LOW_RANK = 32  # ModelOpt's NVFP4_SVDQUANT_DEFAULT_CFG
_LARGEST_CODE, _LARGEST_SCALE = 6.0, 448.0  # of e2m1 and of e4m3

# Groups of linears that read the same input: the norm that makes the input ("" if it is not a norm), the
# linears, and the largest magnitude of the input before smoothing. vLLM fuses the first two groups, so each
# group shares weight_scale_2 and input_scale.
_GROUPS = (
    ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), 16.0),
    ("", ("self_attn.o_proj",), 4.0),
    ("pre_feedforward_layernorm", ("mlp.gate_proj", "mlp.up_proj"), 16.0),
    ("", ("mlp.down_proj",), 32.0),
)


def quantization_config(layout: Layout) -> tuple[dict[str, object], dict[str, object]]:
    """Return hf_quant_config.json, and `quantization_config` of config.json.

    ModelOpt 0.42.0: export/quant_utils.py, process_layer_quant_config; export/convert_hf_config.py, which
    writes config_groups for NVFP4 only.
    """
    algorithm = {"nvfp4": "NVFP4", "nvfp4_awq": "NVFP4_AWQ", "nvfp4_svd": "NVFP4_SVD"}[layout]
    producer = {"name": "modelopt", "version": "0.42.0"}
    excluded = ["lm_head", "model.embed_vision*", "model.vision_tower*"]
    outer: dict[str, object] = {
        "quant_algo": algorithm,
        "kv_cache_quant_algo": None,
        "group_size": GROUP_SIZE,
    }
    if layout == "nvfp4_awq":
        outer |= {"has_zero_point": False, "pre_quant_scale": True}
    outer["exclude_modules"] = excluded
    inner: dict[str, object] = {}
    if layout == "nvfp4":
        numbers = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": GROUP_SIZE}
        group = {"input_activations": numbers, "weights": numbers, "targets": ["Linear"]}
        inner["config_groups"] = {"group_0": group}
    inner |= {
        "ignore": excluded,
        "quant_algo": algorithm,
        "producer": producer,
        "quant_method": "modelopt",
    }
    return {"producer": producer, "quantization": outer}, inner


def quantize(tensors: dict[str, Floats], layout: Layout) -> dict[str, NDArray[Any]]:
    """Return the tensors of the packed checkpoint; those that are not packed are in bfloat16."""
    remaining = dict(tensors)
    packed: dict[str, NDArray[Any]] = {}
    for prefix, norm, linears, input_peak in _groups(tensors):
        weights = {f"{prefix}{name}": remaining.pop(f"{prefix}{name}.weight") for name in linears}
        columns = next(iter(weights.values())).shape[1]
        smoothing = _smoothing(layout, columns)
        keeps_smoothing = layout == "nvfp4_svd" or (layout == "nvfp4_awq" and not norm)
        if norm and not keeps_smoothing:
            remaining[f"{prefix}{norm}.weight"] = remaining[f"{prefix}{norm}.weight"] * smoothing
        packed |= _quantize_group(weights, smoothing, input_peak, layout)
        if keeps_smoothing:
            for name in weights:
                packed[f"{name}.pre_quant_scale"] = smoothing.astype(ml_dtypes.bfloat16)
    for name, tensor in remaining.items():
        packed[name] = tensor.astype(ml_dtypes.bfloat16)
    return packed


def _quantize_group(
    weights: dict[str, Floats], smoothing: Floats, input_peak: float, layout: Layout
) -> dict[str, NDArray[Any]]:
    smoothed = {name: weight / smoothing for name, weight in weights.items()}
    branches: dict[str, NDArray[Any]] = {}
    if layout == "nvfp4_svd":
        smoothed, branches = _split_low_rank(smoothed)
    return branches | _pack_group(smoothed, input_peak * float(smoothing.max()))


def _groups(tensors: dict[str, Floats]) -> Iterator[tuple[str, str, list[str], float]]:
    """Yield (layer prefix, norm, existing linears, input peak) for every group of every language layer."""
    suffix = "input_layernorm.weight"
    for tensor in tensors:
        if "language_model" not in tensor or not tensor.endswith(suffix):
            continue
        prefix = tensor.removesuffix(suffix)
        for norm, linears, input_peak in _GROUPS:
            existing = [name for name in linears if f"{prefix}{name}.weight" in tensors]
            yield prefix, norm, existing, input_peak


def _smoothing(layout: Layout, columns: int) -> Floats:
    """Return a pre_quant_scale [columns] whose omission is visible; ones for a layout without smoothing.

    The two halves have the factors 1/4 and 4, and a ripple. In the tiny Gemma 4 the two halves of the inputs
    of o_proj and down_proj must balance (see `layers`).
    """
    if layout == "nvfp4":
        return np.ones(columns, np.float32)
    scales: Floats = np.resize(np.array([0.75, 1.0, 1.25], np.float32), columns)
    scales[: columns // 2] /= 4
    scales[columns // 2 :] *= 4
    return scales


def _split_low_rank(weights: dict[str, Floats]) -> tuple[dict[str, Floats], dict[str, NDArray[Any]]]:
    """Return R and the factors of W = R + B A; A [32, in] selects the 32 columns with the largest values.

    This is exact, without the rounding of a decomposition. Linears that read the same input share A, as in
    ModelOpt (export/quant_utils.py, _update_svdquant).
    """
    peaks = np.abs(np.concatenate(list(weights.values()))).max(axis=0)
    heaviest = np.sort(np.argsort(-peaks, kind="stable")[:LOW_RANK])
    lora_a = np.zeros((LOW_RANK, peaks.size), np.float32)
    lora_a[np.arange(LOW_RANK), heaviest] = 1
    rest = {name: weight.copy() for name, weight in weights.items()}
    branches: dict[str, NDArray[Any]] = {}
    for name, weight in weights.items():
        rest[name][:, heaviest] = 0
        for side, factor in {"a": lora_a, "b": np.ascontiguousarray(weight[:, heaviest])}.items():
            branches[f"{name}.weight_quantizer._svdquant_lora_{side}"] = factor.astype(ml_dtypes.bfloat16)
    return rest, branches


def _pack_group(weights: dict[str, Floats], input_peak: float) -> dict[str, NDArray[Any]]:
    """Pack linears that read the same input, with a common weight_scale_2 and input_scale."""
    largest = _LARGEST_CODE * _LARGEST_SCALE
    peak = max(float(np.abs(weight).max()) for weight in weights.values())
    scale_2 = np.float32(peak / largest)
    packed: dict[str, NDArray[Any]] = {}
    for name, weight in weights.items():
        packed[f"{name}.weight"], packed[f"{name}.weight_scale"] = pack(weight, scale_2)
        packed[f"{name}.weight_scale_2"] = np.asarray(scale_2)
        packed[f"{name}.input_scale"] = np.asarray(np.float32(input_peak / largest))
    return packed


def pack(weight: Floats, scale_2: np.float32) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return codes uint8 [out, in / 2] and block scales float8_e4m3fn [out, in / 16] for a weight [out, in].

    Rounds to nearest, ties to even. A block of zeros gets the scale 1, as in ModelOpt
    (quantization/qtensor/nvfp4_tensor.py).
    """
    blocks = weight.reshape(weight.shape[0], -1, GROUP_SIZE)
    wanted = np.abs(blocks).max(axis=-1) / _LARGEST_CODE / scale_2
    scales = np.where(wanted == 0, 1, wanted).clip(2**-9, _LARGEST_SCALE).astype(ml_dtypes.float8_e4m3fn)
    steps = scales.astype(np.float32) * scale_2
    codes = (blocks / steps[..., None]).clip(-_LARGEST_CODE, _LARGEST_CODE).astype(ml_dtypes.float4_e2m1fn)
    nibbles: NDArray[np.uint8] = codes.view(np.uint8).reshape(weight.shape)
    return np.bitwise_or(nibbles[:, 0::2], nibbles[:, 1::2] * np.uint8(16)), scales
