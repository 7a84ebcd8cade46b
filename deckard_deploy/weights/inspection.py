"""The inspection of a checkpoint by its headers: architecture, formats, sizes, faults, NaN scales."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.system.text import escaped
from deckard_deploy.weights import gemma4_config
from deckard_deploy.weights.checkpoint import Checkpoint, read_checkpoint
from deckard_deploy.weights.linears import Linear, orphan_scales, packed_linears
from deckard_deploy.weights.safetensors_header import Tensor

QUANTIZATIONS = {"": "none", "NVFP4": "nvfp4", "NVFP4_AWQ": "nvfp4_awq", "NVFP4_SVD": "nvfp4_svd"}
_NAN = (b"\x7f", b"\xff")  # of float8_e4m3fn: S.1111.111
_CHUNK = 8 << 20


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`. Bytes are of tensors on disk; `faults` is empty for a sound checkpoint.

    layers: (kind, layers, heads, KV heads, head size) for each kind of layer. nan_scales: None if not
    counted.
    """

    folder: str
    architecture: str
    quantization: str
    quant_algo: str
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
    algorithm = escaped(str(found.quantization.get("quant_algo") or "")[:40])
    linears = packed_linears(found.tensors, algorithm)
    nan_scales = _nan_scales(found) if count_nan else None
    faults = list(_faults(found, linears, algorithm))
    if drafter:
        faults += _drafter_faults(found, drafter)
    if nan_scales:
        faults.append(
            f"{nan_scales} weight scales are NaN: those blocks answer with NaN unless the engine repairs them"
        )
    return Inspection(
        folder=str(folder),
        architecture=_architecture(found),
        quantization=QUANTIZATIONS.get(algorithm, "unknown"),
        quant_algo=algorithm,
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


def _faults(found: Checkpoint, linears: list[Linear], algorithm: str) -> Iterator[str]:
    architecture = _architecture(found)
    if architecture not in gemma4_config.SERVED:
        yield f"config.json: architecture {architecture!r} is not Gemma 4"
    if algorithm not in QUANTIZATIONS:
        yield f"quant_algo {algorithm!r} is none that an engine of ours serves"
    if algorithm and not linears:
        yield f"quant_algo is {algorithm}, and no linear is packed"
    if linears and not algorithm:
        yield f"{len(linears)} linears are packed, and no quantization is declared"
    for linear in linears:
        if linear.fault:
            yield f"{linear.name}: {linear.fault}"
    for name in orphan_scales(found.tensors):
        yield f"{name}: its packed weight is not there"
    yield from gemma4_config.faults(found.text_config, found.tensors)


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


def _nan_scales(found: Checkpoint) -> int:
    count = 0
    for name, tensor in found.tensors.items():
        if tensor.dtype == "F8_E4M3" and name.endswith(".weight_scale"):
            count += _count_nan(found.files[name], tensor)
    return count


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
