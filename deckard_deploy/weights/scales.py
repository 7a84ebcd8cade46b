"""The quantization scales of a checkpoint that no engine can use, and the repair of NaN block scales.

The rule is that of the patch `modelopt` and of the plugin nvfp4-awq, which repair the same scales in memory: ModelOpt
before 0.45.0 casts a block's scale to float8_e4m3 without a clamp, and torch before 2.12 makes NaN of every value from
465 up (NVIDIA/Model-Optimizer issue 1633). The nearest scale is 448, the largest of e4m3. Codes that were packed by
dividing by NaN are sixteen equal maxima (0x77 or 0xFF) without information; 448 would make sixteen outliers of them, so
their scale becomes 0.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple

from deckard_deploy.errors import IntegrityError
from deckard_deploy.system.text import escaped
from deckard_deploy.weights.checkpoint import Checkpoint
from deckard_deploy.weights.linears import GROUP
from deckard_deploy.weights.safetensors_header import Tensor

LARGEST, ZERO = 0x7E, 0x00  # 448 and 0 in float8_e4m3fn
_NAN = re.compile(b"[\x7f\xff]")  # of float8_e4m3fn: S.1111.111; it has no infinity
_CODES = GROUP // 2  # bytes of a block
_LOST = (b"\x77" * _CODES, b"\xff" * _CODES)
_CHUNK = 8 << 20
# A scale that the weights or the inputs are multiplied with or divided by, one or few for a linear.
_WIDE = (
    "weight_scale",
    "weight_scale_2",
    "weight_scale_inv",
    "weight_global_scale",
    "input_scale",
    "input_global_scale",
    "pre_quant_scale",
    "scales",
)
# An engine divides by these; a zero in another scale writes zeros.
_DIVISORS = ("weight_global_scale", "input_scale", "input_global_scale", "pre_quant_scale")
# The mask of the exponent of a type, and the format of one value in `memoryview.cast`.
_EXPONENTS: dict[str, tuple[int, Literal["I", "H"]]] = {
    "F32": (0x7F800000, "I"),
    "BF16": (0x7F80, "H"),
    "F16": (0x7C00, "H"),
}
_SIGNS = {"I": 0x7FFFFFFF, "H": 0x7FFF}


class ScaleRepair(NamedTuple):
    """The NaN block scales of one tensor. patches: the new byte by its offset in the file."""

    tensor: str
    file: Path
    patches: dict[int, int]

    @property
    def zeroed(self) -> int:
        """The number of blocks whose codes are lost."""
        return sum(value == ZERO for value in self.patches.values())


class ScaleFault(NamedTuple):
    """A scale that no rule restores."""

    tensor: str
    cause: str


def find_repairs(found: Checkpoint) -> Iterator[ScaleRepair | ScaleFault]:
    """Yield the NaN block scales of each NVFP4 tensor, and each scale that no rule restores. Raises OSError."""
    for name, tensor in sorted(found.tensors.items()):
        prefix, _, suffix = name.rpartition(".")
        if suffix not in _WIDE or not tensor.bytes:
            continue
        if tensor.dtype == "F8_E4M3":
            yield from _block_repair(found, prefix, name, tensor)
        elif tensor.dtype in _EXPONENTS:
            cause = _wide_fault(found.files[name], tensor, zero_is_fault=suffix in _DIVISORS)
            if cause:
                yield ScaleFault(escaped(name), f"{cause}, and nothing in the checkpoint restores it")


def require_repairs(found: Checkpoint, *, before: str, hint: str) -> tuple[ScaleRepair, ...]:
    """Return the repairs of all NaN scales.

    Raises IntegrityError for a scale that no rule restores, and OSError. before: the words before the tensor's name.
    """
    repairs = []
    for each in find_repairs(found):
        if isinstance(each, ScaleFault):
            raise IntegrityError(f"{before}{each.tensor}: {each.cause}", hint=hint)
        repairs.append(each)
    return tuple(repairs)


def _block_repair(
    found: Checkpoint, prefix: str, name: str, scale: Tensor
) -> Iterator[ScaleRepair | ScaleFault]:
    places = list(_nan_places(found.files[name], scale))
    if not places:
        return
    weight = found.tensors.get(f"{prefix}.weight")
    shown = escaped(name)
    if weight is None or weight.dtype != "U8" or weight.bytes != scale.bytes * _CODES:
        yield ScaleFault(
            shown, f"{len(places)} scales are NaN, and a rule is known for ModelOpt's NVFP4 alone"
        )
        return
    global_scale = found.tensors.get(f"{prefix}.weight_scale_2")
    if len(places) == scale.bytes and not _is_zero(found, f"{prefix}.weight_scale_2", global_scale):
        yield ScaleFault(shown, "every scale is NaN, so no code of this linear means anything")
        return
    with found.files[f"{prefix}.weight"].open("rb") as codes:
        patches = {scale.begin + place: _new_scale(codes, weight.begin, place) for place in places}
    yield ScaleRepair(shown, found.files[name], patches)


def _nan_places(path: Path, scale: Tensor) -> Iterator[int]:
    """Yield the number of each NaN block scale of a tensor."""
    with path.open("rb") as file:
        file.seek(scale.begin)
        done = 0
        while done < scale.bytes:
            data = file.read(min(scale.bytes - done, _CHUNK))
            if not data:
                return  # the file was cut after its header was checked against its size
            for place in _NAN.finditer(data):
                yield done + place.start()
            done += len(data)


def _new_scale(codes: IO[bytes], begin: int, place: int) -> int:
    codes.seek(begin + place * _CODES)
    return ZERO if codes.read(_CODES) in _LOST else LARGEST


def _is_zero(found: Checkpoint, name: str, tensor: Tensor | None) -> bool:
    """Return True for the global scale of a linear of zeros, whose block scales ModelOpt computes as 0/0."""
    return tensor is not None and not any(_read(found.files[name], tensor))


def _wide_fault(path: Path, tensor: Tensor, *, zero_is_fault: bool) -> str:
    """Return the fault of scales in 16 or 32 bits, "" if they have none."""
    exponent, kind = _EXPONENTS[tensor.dtype]
    # A set of a memoryview is made without a loop in Python: GPTQ has a scale for every 128 weights.
    values = set(memoryview(_read(path, tensor)).cast(kind))
    if any(value & exponent == exponent for value in values):
        return "NaN or infinite"
    if zero_is_fault and any(value & _SIGNS[kind] == 0 for value in values):
        return "zero"
    return ""


def _read(path: Path, tensor: Tensor) -> bytes:
    with path.open("rb") as file:
        file.seek(tensor.begin)
        return file.read(tensor.bytes)
