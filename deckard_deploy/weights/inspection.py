"""What a checkpoint is, by its headers: architecture, formats, bytes by component, faults; NaN scales on request."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.weights import gemma4_config
from deckard_deploy.weights.checkpoint import Checkpoint, read_checkpoint
from deckard_deploy.weights.linears import Linear, packed_linears, strays
from deckard_deploy.weights.safetensors_header import Tensor
from deckard_deploy.weights.strict_json import printable

QUANTIZATIONS = {"": "none", "NVFP4": "nvfp4", "NVFP4_AWQ": "nvfp4_awq", "NVFP4_SVD": "nvfp4_svd"}
_NAN = (b"\x7f", b"\xff")  # of float8_e4m3fn: S.1111.111
_CHUNK = 8 << 20


@dataclass(frozen=True)
class Inspection:
    """Everything `inspect` shows. Bytes are of tensors on disk; `faults` is empty for a sound checkpoint."""

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
        """For programs."""
        return asdict(self)


def inspect(folder: Path, *, drafter: Path | None = None, count_nan: bool = False) -> Inspection:
    """Inspect a checkpoint, alone or with the one that drafts for it.

    count_nan reads the weight scales, a sixteenth of the packed weights; nothing else is read but headers and JSON.
    Raises IntegrityError for files that cannot be read as what they are named.
    """
    found = read_checkpoint(folder)
    algorithm = printable(str(found.quantization.get("quant_algo") or "")[:40])
    linears = packed_linears(found.tensors, algorithm)
    nan_scales = _nan_scales(found) if count_nan else None
    faults = [*_faults(found, linears, algorithm), *(_drafter_faults(found, drafter) if drafter else ())]
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
    named = found.config.get("architectures")
    return printable(str(named[0])[:80]) if isinstance(named, list) and named else ""


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
    yield from (f"{linear.name}: {linear.fault}" for linear in linears if linear.fault)
    yield from (f"{name}: its packed weight is not there" for name in strays(found.tensors))
    yield from gemma4_config.faults(found.text_config, found.tensors)


def _drafter_faults(target: Checkpoint, drafter: Path) -> Iterator[str]:
    ours, other = (str(one.text_config.get("vocab_size"))[:40] for one in (target, read_checkpoint(drafter)))
    if ours != other:
        yield f"the drafter's vocabulary has {printable(other)} tokens, and this one {printable(ours)}"


def _layer_table(found: Checkpoint) -> tuple[tuple[str, int, int, int, int], ...]:
    """(kind, layers, heads, KV heads, head size) for each kind of layer; empty when config.json contradicts itself."""
    try:
        kinds = Counter(gemma4_config.layers(found.text_config))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()  # _faults says what is wrong
    return tuple(
        (layer.kind, count, layer.heads, layer.kv_heads, layer.head_dim) for layer, count in kinds.items()
    )


def _format(name: str, tensors: dict[str, Tensor]) -> str:
    tensor = tensors[name]
    packed = tensor.dtype == "U8" and f"{name}_scale" in tensors
    return "NVFP4" if packed else tensor.dtype


def _nan_scales(found: Checkpoint) -> int:
    count = 0
    for name, tensor in found.tensors.items():
        if tensor.dtype == "F8_E4M3" and name.endswith(".weight_scale"):
            with found.files[name].open("rb") as file:
                file.seek(tensor.begin)
                left = tensor.bytes
                while left:
                    data = file.read(min(left, _CHUNK))
                    if not data:
                        break  # cut while we read; the header was checked against the size a moment ago
                    left -= len(data)
                    count += sum(data.count(nan) for nan in _NAN)
    return count
