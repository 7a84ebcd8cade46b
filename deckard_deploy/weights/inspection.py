"""The inspection of a checkpoint by its headers: architecture, formats, sizes, faults, NaN scales."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.system.text import escaped
from deckard_deploy.weights import formats, gemma4_config
from deckard_deploy.weights.chat_template import chat_template
from deckard_deploy.weights.checkpoint import Checkpoint, read_checkpoint
from deckard_deploy.weights.derivation import QUANTIZATIONS
from deckard_deploy.weights.linears import Linear, orphan_scales, packed_linears
from deckard_deploy.weights.safetensors_header import Tensor

# A NaN scale is a known fault of ModelOpt's export before 0.45.0, which clamps (NVIDIA/Model-Optimizer issue 1633).
_CLAMPS_SINCE = (0, 45)
_QUICK_BYTES = 64 << 20  # of scales: they are counted unasked
_NAN = (b"\x7f", b"\xff")  # of float8_e4m3fn: S.1111.111
_CHUNK = 8 << 20


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`. Bytes are of tensors on disk; `faults` is empty for a sound checkpoint.

    layers: (kind, layers, heads, KV heads, head size) for each kind of layer. nan_scales: None if not
    counted. format: the quantization for people; loaded_by: the vLLM releases that know it.
    """

    folder: str
    architecture: str
    quantization: str
    quant_algo: str
    format: str
    loaded_by: tuple[str, ...]
    producer: str
    layers: tuple[tuple[str, int, int, int, int], ...]
    formats: dict[str, int]
    components: dict[str, int]
    total_bytes: int
    tensors: int
    linears: tuple[Linear, ...]
    faults: tuple[str, ...]
    nan_scales: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return asdict(self)


def inspect(folder: Path, *, drafter: Path | None = None, count_nan: bool = False) -> Inspection:
    """Inspect a checkpoint, alone or together with its drafter.

    Only headers and JSON are read. count_nan: read the weight scales too, a sixteenth of the packed weights.
    Raises IntegrityError for a file whose content does not match its name.
    """
    found = read_checkpoint(folder)
    named = formats.format_of(found.quantization)
    linears = packed_linears(found.tensors, named.algorithm) if _is_nvfp4(named) else []
    nan_scales = _nan_scales(found) if count_nan or _scale_bytes(found) <= _QUICK_BYTES else None
    faults = list(_faults(found, linears, named))
    if drafter:
        faults += _drafter_faults(found, drafter)
    if nan_scales:
        faults.append(f"{nan_scales} weight scales are NaN: {_nan_cause(found.producer)}")
    return Inspection(
        folder=str(folder),
        architecture=_architecture(found),
        quantization=QUANTIZATIONS.get(named.algorithm or named.method, "unknown"),
        quant_algo=named.algorithm,
        format=named.text,
        loaded_by=tuple(formats.loaded_by(named)),
        producer=found.producer,
        layers=_layer_table(found),
        formats=dict(Counter(_format(name, found.tensors) for name in found.tensors)),
        components=found.component_bytes(),
        total_bytes=sum(tensor.bytes for tensor in found.tensors.values()),
        tensors=len(found.tensors),
        linears=tuple(linears),
        faults=tuple(faults),
        nan_scales=nan_scales,
    )


def _architecture(found: Checkpoint) -> str:
    architectures = found.config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return ""
    return escaped(str(architectures[0])[:80])


def _is_nvfp4(named: formats.Format) -> bool:
    """Return True if linears.py knows the layout; without a quantization it finds what is packed all the same."""
    return named.algorithm in formats.NVFP4_LAYOUTS or named.text == "none"


def _nan_cause(producer: str) -> str:
    name, _, version = producer.partition(" ")
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})", version)
    if name != "modelopt" or numbers is None:
        return "those blocks answer with NaN unless the engine repairs them"
    if (int(numbers[1]), int(numbers[2])) < _CLAMPS_SINCE:
        return (
            f"a known fault of ModelOpt {version}'s export, fixed in 0.45.0; the patch modelopt (0.19.1) and the "
            "plugin nvfp4-awq (later) repair them, other engines answer with NaN"
        )
    return f"ModelOpt {version} writes none, so the file is damaged: deckard-deploy verify --repair, or pull again"


def _faults(found: Checkpoint, linears: list[Linear], named: formats.Format) -> Iterator[str]:
    architecture = _architecture(found)
    if architecture not in gemma4_config.SERVED:
        yield f"config.json: architecture {architecture!r} is not Gemma 4"
    if not formats.loaded_by(named):
        if named.algorithm:
            yield f"quant_algo {named.algorithm!r} is none that an engine of ours serves"
        else:
            yield f"quantization {named.text!r} is none that an engine of ours serves"
    if _is_nvfp4(named):
        yield from _nvfp4_faults(found, linears, named.algorithm)
    else:
        yield from formats.linear_faults(named, found.quantization, found.tensors)
    yield from file_faults(found)
    yield from gemma4_config.faults(found.text_config, found.tensors)


def _nvfp4_faults(found: Checkpoint, linears: list[Linear], algorithm: str) -> Iterator[str]:
    if algorithm and not linears:
        yield f"quant_algo is {algorithm}, and no linear is packed"
    if linears and not algorithm:
        yield f"{len(linears)} linears are packed, and no quantization is declared"
    for linear in linears:
        if linear.fault:
            yield f"{linear.name}: {linear.fault}"
    for name in orphan_scales(found.tensors):
        yield f"{name}: its packed weight is not there"


def file_faults(found: Checkpoint) -> Iterator[str]:
    """Yield a line for each file without which a chat model of this architecture cannot be served."""
    if _architecture(found) not in gemma4_config.SERVED:
        return  # a drafter has its target's files
    files = found.other_files
    if "tokenizer.json" not in files:
        yield "tokenizer.json is missing: vLLM does not start without the tokenizer"
    elif not _is_json_object(found.folder / "tokenizer.json"):
        yield "tokenizer.json is no JSON object: was the file fetched (git lfs pull)?"
    if chat_template(found.folder) is None:
        yield "no chat template (chat_template.jinja): /v1/chat/completions answers 400"
    if found.config.get("vision_config") and not files & {
        "processor_config.json",
        "preprocessor_config.json",
    }:
        yield "processor_config.json is missing: vLLM finds no image processor, and does not start"


def _is_json_object(path: Path) -> bool:
    """Return True if the file begins as a JSON object: a tokenizer has tens of megabytes."""
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"{"


def _drafter_faults(target: Checkpoint, drafter: Path) -> Iterator[str]:
    target_size = _vocabulary_size(target)
    drafter_size = _vocabulary_size(read_checkpoint(drafter))
    if target_size != drafter_size:
        sizes = f"{escaped(drafter_size)} tokens, and this one {escaped(target_size)}"
        yield f"the drafter's vocabulary has {sizes}"


def _vocabulary_size(checkpoint: Checkpoint) -> str:
    return str(checkpoint.text_config.get("vocab_size"))[:40]


def _layer_table(found: Checkpoint) -> tuple[tuple[str, int, int, int, int], ...]:
    """Return Inspection.layers; empty if config.json contradicts itself."""
    try:
        kinds = Counter(gemma4_config.layers(found.text_config))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()  # gemma4_config.faults reports it
    rows = []
    for layer, count in kinds.items():
        rows.append((layer.kind, count, layer.heads, layer.kv_heads, layer.head_dim))
    return tuple(rows)


def _format(name: str, tensors: dict[str, Tensor]) -> str:
    tensor = tensors[name]
    if tensor.dtype == "U8" and f"{name}_scale" in tensors:
        return "NVFP4"
    return tensor.dtype


def _scales(found: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in found.tensors.items():
        if tensor.dtype == "F8_E4M3" and name.endswith(".weight_scale"):
            yield name, tensor


def _scale_bytes(found: Checkpoint) -> int:
    return sum(tensor.bytes for _, tensor in _scales(found))


def _nan_scales(found: Checkpoint) -> int:
    return sum(_count_nan(found.files[name], tensor) for name, tensor in _scales(found))


def _count_nan(path: Path, tensor: Tensor) -> int:
    """Count the NaN in a float8_e4m3fn tensor. Raises OSError."""
    count = 0
    with path.open("rb") as file:
        file.seek(tensor.begin)
        left = tensor.bytes
        while left:
            data = file.read(min(left, _CHUNK))
            if not data:
                break  # the file was cut after its header was checked against its size
            left -= len(data)
            for nan in _NAN:
                count += data.count(nan)
    return count
