"""The linears of a checkpoint that are packed to NVFP4, and a check that each has the tensors of its format.

The layout: ModelOpt 0.42.0, export/quant_utils.py and quantization/qtensor/nvfp4_tensor.py. weight uint8
[out, in / 2], weight_scale float8_e4m3 [out, in / 16], weight_scale_2 and input_scale float32 scalars.
NVFP4_AWQ keeps pre_quant_scale [in] on the linears whose input is not the output of a norm (o_proj,
down_proj; unified_export_hf.py:250-262). NVFP4_SVD keeps pre_quant_scale on every linear, next to a low-rank
branch (quantization/nn/modules/quant_linear.py:69-115).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from deckard_deploy.weights.safetensors_header import Tensor

GROUP = 16
_SCALES = ("weight_scale", "weight_scale_2", "input_scale")
_KEEP_SMOOTHING = ("o_proj", "down_proj")
_LORA = tuple(f"weight_quantizer._svdquant_lora_{side}" for side in "ab")
_SIBLINGS = (*_SCALES, "pre_quant_scale", *_LORA)


@dataclass(frozen=True)
class Linear:
    """One packed linear: its shape [out, in] before packing, and its fault ("" if it has none)."""

    name: str
    shape: tuple[int, int]
    smoothed: bool
    fault: str


def packed_linears(tensors: Mapping[str, Tensor], quant_algo: str) -> list[Linear]:
    """Return every linear with a uint8 weight, sorted by name."""
    names = []
    for name, tensor in tensors.items():
        if _is_packed(name, tensor):
            names.append(name.removesuffix(".weight"))
    return [_linear(name, tensors, quant_algo) for name in sorted(names)]


def orphan_scales(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the sorted names of scales without a packed weight."""
    found = []
    for name in tensors:
        for sibling in _SIBLINGS:
            if name.endswith(f".{sibling}"):
                weight = name.removesuffix(sibling) + "weight"
                if not _is_packed(weight, tensors.get(weight)):
                    found.append(name)
    return sorted(found)


def _is_packed(name: str, tensor: Tensor | None) -> bool:
    return name.endswith(".weight") and tensor is not None and tensor.dtype == "U8"


def _linear(name: str, tensors: Mapping[str, Tensor], quant_algo: str) -> Linear:
    weight = tensors[f"{name}.weight"]
    if len(weight.shape) != 2:
        fault = f"weight has shape {list(weight.shape)}, not two dimensions"
        return Linear(name, (0, 0), smoothed=False, fault=fault)
    shape = (weight.shape[0], weight.shape[1] * 2)
    fault = next(_faults(name, tensors, shape, quant_algo), "")
    return Linear(name, shape, smoothed=f"{name}.pre_quant_scale" in tensors, fault=fault)


def _faults(
    name: str, tensors: Mapping[str, Tensor], shape: tuple[int, int], quant_algo: str
) -> Iterator[str]:
    rows, columns = shape
    expected: dict[str, tuple[str, tuple[tuple[int, ...], ...]]] = {
        "weight_scale": ("F8_E4M3", ((rows, columns // GROUP),)),
        "weight_scale_2": ("F32", ((), (1,))),
        "input_scale": ("F32", ((), (1,))),
    }
    if columns % GROUP:
        yield f"{columns} inputs are not a multiple of {GROUP}"
    for sibling, (dtype, shapes) in expected.items():
        tensor = tensors.get(f"{name}.{sibling}")
        if tensor is None:
            yield f"{sibling} is missing"
        elif tensor.dtype != dtype or tensor.shape not in shapes:
            yield f"{sibling} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shapes[0])}"
    smoothing = tensors.get(f"{name}.pre_quant_scale")
    if smoothing is None and _keeps_smoothing(name, quant_algo):
        yield "pre_quant_scale is missing"
    if smoothing is not None and smoothing.shape != (columns,):
        yield f"pre_quant_scale has shape {list(smoothing.shape)}, not [{columns}]"
    yield from _low_rank_faults(name, tensors, shape, quant_algo)


def _keeps_smoothing(name: str, quant_algo: str) -> bool:
    return quant_algo == "NVFP4_SVD" or (quant_algo == "NVFP4_AWQ" and name.endswith(_KEEP_SMOOTHING))


def _low_rank_faults(
    name: str, tensors: Mapping[str, Tensor], shape: tuple[int, int], quant_algo: str
) -> Iterator[str]:
    down, up = (tensors.get(f"{name}.{part}") for part in _LORA)
    if down is None or up is None:
        if quant_algo == "NVFP4_SVD":
            yield "the low-rank branch is missing"
        return
    fits = down.shape[1:] == shape[1:] and up.shape[:1] == shape[:1] and down.shape[:1] == up.shape[1:]
    if not fits:
        yield f"the low-rank branch {list(up.shape)} x {list(down.shape)} does not fit {list(shape)}"
