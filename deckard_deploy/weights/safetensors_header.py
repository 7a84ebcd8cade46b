"""The header of a safetensors file, parsed and checked without reading the tensors.

The format (github huggingface/safetensors, README, "Format"): the header's length as 8 bytes, little-endian;
the header, a JSON object from names to dtype, shape and data_offsets; the tensors, without holes. Beyond the
checks of the safetensors library (safetensors/src/tensor.rs) this module refuses duplicate or unknown keys
and unprintable names.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.errors import IntegrityError
from deckard_deploy.system.text import escaped
from deckard_deploy.weights.strict_json import detect_wrong_content, parse_object, require_regular

LARGEST_HEADER = 100_000_000  # safetensors/src/tensor.rs, MAX_HEADER_SIZE
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_PREFIX = 8
_LARGEST_COUNT = 2**64


@dataclass(frozen=True)
class Tensor:
    """One entry of the header; `begin` and `end` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def bytes(self) -> int:
        """The size in bytes on disk."""
        return self.end - self.begin


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name. Raises IntegrityError, one line."""
    require_regular(path)
    source = escaped(str(path))
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            beginning = file.read(64)
            length = _header_length(beginning, size, source=source)
            file.seek(_PREFIX)
            return parse_header(file.read(length), size, source=source)
    except OSError as error:
        raise IntegrityError(f"{source}: {error.strerror}", hint=f"ls -l {path.parent}") from error


def _header_length(beginning: bytes, file_bytes: int, *, source: str) -> int:
    wrong_content = detect_wrong_content(beginning)
    if wrong_content:
        raise IntegrityError(f"{source}: {wrong_content}")
    if len(beginning) < _PREFIX:
        raise IntegrityError(f"{source}: {file_bytes} bytes are no safetensors file")
    (length,) = struct.unpack("<Q", beginning[:_PREFIX])
    if length > LARGEST_HEADER:
        raise IntegrityError(f"{source}: a header of {length} bytes; at most {LARGEST_HEADER} are allowed")
    if length < len("{}") or _PREFIX + length > file_bytes:
        raise IntegrityError(
            f"{source}: a header of {length} bytes in a file of {file_bytes}: cut, or no safetensors"
        )
    return int(length)


def parse_header(header: bytes, file_bytes: int, *, source: str) -> dict[str, Tensor]:
    """Return the tensors by name from the header's bytes, without the 8 length bytes. Raises IntegrityError.

    file_bytes: size of the whole file.
    """
    if not header.startswith(b"{"):
        raise IntegrityError(f"{source}: the header is no JSON object")
    entries = parse_object(header, source=f"{source}: header")
    _check_metadata(entries.pop("__metadata__", {}), source)
    start = _PREFIX + len(header)
    tensors = {name: _tensor(name, entry, start, source) for name, entry in entries.items()}
    _check_placement(tensors, start, file_bytes, source)
    return tensors


def _check_placement(tensors: dict[str, Tensor], start: int, file_bytes: int, source: str) -> None:
    """Check that the tensors fill the file from `start` to its end, without hole or overlap."""
    expected = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin < expected:
            raise IntegrityError(f"{source}: tensor {name} overlaps the one before it")
        if tensor.begin > expected:
            raise IntegrityError(f"{source}: tensor {name} leaves a hole before it")
        expected = tensor.end
    if expected != file_bytes:
        kind = "cut" if file_bytes < expected else "longer than its header says"
        raise IntegrityError(f"{source}: {kind}: {file_bytes} bytes, and the header describes {expected}")


def _check_metadata(metadata: Any, source: str) -> None:  # noqa: ANN401  any JSON
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise IntegrityError(f"{source}: __metadata__ is not an object of texts")


def _tensor(name: str, entry: Any, start: int, source: str) -> Tensor:  # noqa: ANN401  any JSON
    where = f"{source}: tensor {name[:120]!r}"
    if not name.isprintable():
        raise IntegrityError(f"{where}: a name with characters that cannot be printed")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise IntegrityError(f"{where}: dtype, shape and data_offsets were expected")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise IntegrityError(f"{where}: unknown dtype {str(dtype)[:40]!r}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise IntegrityError(f"{where}: shape and data_offsets must be whole numbers from 0 on")
    begin, end = offsets
    bits = _product(shape) * BITS[dtype]
    if bits >= _LARGEST_COUNT or begin > end or bits != (end - begin) * 8:
        raise IntegrityError(f"{where}: {dtype} {str(shape)[:60]} does not fill bytes {begin} to {end}")
    return Tensor(dtype, tuple(shape), start + begin, start + end)


def _are_counts(values: Any) -> bool:  # noqa: ANN401  any JSON
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < _LARGEST_COUNT for value in values
    )


def _product(shape: list[int]) -> int:
    """Multiply from left to right, as the library does, and stop at _LARGEST_COUNT.

    Without that limit the product could get millions of digits.
    """
    count = 1
    for size in shape:
        count *= size
        if count >= _LARGEST_COUNT:
            break
    return count
