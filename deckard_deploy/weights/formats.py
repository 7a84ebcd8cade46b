"""The quantization formats of checkpoints: their names, the tensors that each linear has, and who loads them.

ModelOpt: 0.42.0 export/quant_utils.py. compressed-tensors: 0.15.0 config/base.py and its compressors. fp8, gptq and
awq: vLLM 0.32.0 model_executor/layers/quantization (fp8.py, auto_gptq.py, auto_awq.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from deckard_deploy.system.text import escaped
from deckard_deploy.weights.safetensors_header import Tensor

# Packed to NVFP4 as weights/linears.py checks it, tensor by tensor.
NVFP4_LAYOUTS = ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD")
COMPRESSED = "compressed-tensors"
# The algorithms of ModelOpt that a release accepts by itself (QUANT_ALGOS: modelopt.py:107 of 0.19.1, 156 of 0.32.0,
# 160 of 0.33.0).
_SINCE_0_19 = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4", "MXFP8", "MIXED_PRECISION")
_RELEASES = {
    "vLLM 0.19.1": _SINCE_0_19,
    "vLLM 0.32.0": (*_SINCE_0_19, "W4A16_NVFP4"),
    "vLLM 0.33.0": (*_SINCE_0_19, "W4A16_NVFP4"),
}
_OURS = ("NVFP4_AWQ", "NVFP4_SVD")  # by a patch or the plugin of this project
# The methods of config.json that all these releases register (quantization/__init__.py).
_METHODS = (
    COMPRESSED,
    "fp8",
    "fbgemm_fp8",
    "gptq",
    "awq",
    "mxfp4",
    "quark",
    "torchao",
    "moe_wna16",
)


class _Layout(NamedTuple):
    """The tensors of one quantized linear: the one that marks it, its types, and those that it cannot be without."""

    marker: str
    dtypes: tuple[str, ...]
    needs: tuple[str, ...]


_FP8 = ("F8_E4M3", "F8_E5M2")
_LAYOUTS = {
    "NVFP4": _Layout("weight", ("U8",), ("weight_scale", "weight_scale_2", "input_scale")),
    "W4A16_NVFP4": _Layout("weight", ("U8",), ("weight_scale", "weight_scale_2")),
    "FP8": _Layout("weight", _FP8, ("weight_scale",)),
    "FP8_PER_CHANNEL_PER_TOKEN": _Layout("weight", _FP8, ("weight_scale",)),
    "FP8_PB_WO": _Layout("weight", _FP8, ("weight_scale",)),
    "MXFP8": _Layout("weight", _FP8, ("weight_scale",)),
    "nvfp4-pack-quantized": _Layout("weight_packed", ("U8",), ("weight_scale", "weight_global_scale")),
    "mxfp4-pack-quantized": _Layout("weight_packed", ("U8",), ("weight_scale",)),
    "pack-quantized": _Layout("weight_packed", ("I32",), ("weight_scale", "weight_shape")),
    "float-quantized": _Layout("weight", _FP8, ("weight_scale",)),
    "mxfp8-quantized": _Layout("weight", _FP8, ("weight_scale",)),
    "int-quantized": _Layout("weight", ("I8",), ("weight_scale",)),
    "naive-quantized": _Layout("weight", ("I8", *_FP8), ("weight_scale",)),
    "gptq": _Layout("qweight", ("I32",), ("scales", "qzeros")),
    "awq": _Layout("qweight", ("I32",), ("scales", "qzeros")),
}


class Format(NamedTuple):
    """A format as config.json names it. text: for people. layout: of its linears; "" if it is not known here."""

    algorithm: str
    method: str
    text: str
    layout: str


def format_of(quantization: Mapping[str, Any]) -> Format:
    """Return the format of a checkpoint; "none" as its text without one."""
    algorithm = _word(quantization.get("quant_algo"))
    method = _word(quantization.get("quant_method"))
    if algorithm:
        text = algorithm
        layers = Counter(layer_algorithms(quantization).values())
        if layers:
            text += f" ({', '.join(f'{count} {name}' for name, count in sorted(layers.items()))})"
        return Format(algorithm, method, text, algorithm if algorithm in _LAYOUTS else "")
    if not method:
        return Format("", "", "none" if not quantization else "without a name", "")
    if method == COMPRESSED:
        formats = _compressed_formats(quantization)
        layout = formats[0] if len(formats) == 1 and formats[0] in _LAYOUTS else ""
        return Format("", method, f"{method} ({', '.join(formats) or 'no format'})", layout)
    bits = quantization.get("bits", quantization.get("w_bit"))
    text = f"{method} ({bits} bits)" if type(bits) is int else method
    return Format("", method, text, method if method in _LAYOUTS else "")


def layer_algorithms(quantization: Mapping[str, Any]) -> dict[str, str]:
    """Return the algorithm of each layer of MIXED_PRECISION, by the layer's name."""
    layers = quantization.get("quantized_layers")
    found = {}
    for name, settings in layers.items() if isinstance(layers, dict) else ():
        if isinstance(settings, dict):
            found[str(name)] = _word(settings.get("quant_algo")) or "unknown"
    return found


def _compressed_formats(quantization: Mapping[str, Any]) -> list[str]:
    """Return the formats of the groups: of `mixed-precision` each group has its own."""
    formats = []
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        named = _word(group.get("format")) if isinstance(group, dict) else ""
        if named and named not in formats:
            formats.append(named)
    overall = _word(quantization.get("format"))
    return formats or ([overall] if overall else [])


def _word(value: object) -> str:
    return escaped(value[:40]) if isinstance(value, str) else ""


def loaded_by(found: Format) -> list[str]:
    """Return the vLLM releases of this project that load the format, each as `vLLM VERSION`."""
    if not found.algorithm:
        known = found.text == "none" or found.method in _METHODS
        return list(_RELEASES) if known else []
    if found.algorithm in _OURS:
        return list(_RELEASES)
    return [release for release, algorithms in _RELEASES.items() if found.algorithm in algorithms]


def linear_faults(
    found: Format, quantization: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Yield a line for each quantized linear that lacks a tensor of its format; one line if none is quantized."""
    if found.algorithm == "MIXED_PRECISION":
        yield from _mixed_faults(layer_algorithms(quantization), tensors)
        return
    layout = _LAYOUTS.get(found.layout)
    if layout is None:
        return
    names = marked_linears(found.layout, tensors)
    if not names:
        yield f"the quantization is {found.text}, and no linear has a {layout.marker} of it"
    for name in names:
        missing = _missing(name, layout, tensors)
        if missing:
            yield f"{name}: {missing} is missing"


def marked_linears(layout: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the sorted names of the linears that are quantized in this layout."""
    marker, dtypes, _ = _LAYOUTS[layout]
    suffix = f".{marker}"
    names = []
    for name, tensor in tensors.items():
        if name.endswith(suffix) and tensor.dtype in dtypes:
            names.append(name.removesuffix(suffix))
    return sorted(names)


def _missing(name: str, layout: _Layout, tensors: Mapping[str, Tensor]) -> str:
    for need in layout.needs:
        alternative = f"{name}.{need}_inv"  # of DeepSeek's blocks of FP8 (vLLM fp8.py)
        if f"{name}.{need}" not in tensors and alternative not in tensors:
            return need
    return ""


def _mixed_faults(layers: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    if not layers:
        yield "quant_algo is MIXED_PRECISION, and quantized_layers names no layer"
    for name, algorithm in sorted(layers.items()):
        layout = _LAYOUTS.get(algorithm)
        weight = tensors.get(f"{name}.weight")
        if layout is None:
            yield f"{escaped(name)}: quant_algo {algorithm!r} is not known"
        elif weight is None:
            yield f"{escaped(name)}: quantized_layers names it, and it has no weight"
        elif weight.dtype not in layout.dtypes:
            yield f"{escaped(name)}: its weight is {weight.dtype}, and quantized_layers says {algorithm}"
        elif _missing(name, layout, tensors):
            yield f"{escaped(name)}: {_missing(name, layout, tensors)} is missing"
