"""JSON objects from a checkpoint that somebody else made: strict, and every fault is one line."""

import json
from pathlib import Path
from typing import Any, NoReturn

from deckard_deploy.errors import IntegrityError

_LARGEST_CONFIG = 64 << 20
# How a file begins that is there in place of the one that was asked for.
_IMPOSTORS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),  # guard: F15
    (b"<!doctype", "an HTML page, not the file"),
    (b"<html", "an HTML page, not the file"),
    (b"<?xml", "an XML error page, not the file"),
    (b"\x80\x02", "a pickle: it can run code, and is never loaded"),
    (b"\x80\x03", "a pickle: it can run code, and is never loaded"),
    (b"\x80\x04", "a pickle: it can run code, and is never loaded"),
    (b"\x80\x05", "a pickle: it can run code, and is never loaded"),
    (b"pk\x03\x04", "a zip archive (PyTorch's pickles are such), and is never loaded"),
)


def impostor(beginning: bytes) -> str | None:
    """What the first bytes of a file betray it to be, in place of weights or JSON; None for nothing known."""
    start = beginning[:64].lstrip().lower()
    known = next((what for mark, what in _IMPOSTORS if start.startswith(mark)), None)
    if known is None and len(beginning) >= 8 and not any(beginning):
        return "nothing but zeros"
    return known


def require_regular(path: Path) -> None:
    """Refuse what is there and is no file: a FIFO would wait for ever, a device never end. Raises IntegrityError."""
    if path.exists() and not path.is_file():
        raise IntegrityError(f"{printable(str(path))}: not a regular file", hint=f"ls -l {path.parent}")


def printable(text: str) -> str:
    """A name as a terminal may have it: what somebody else chose cannot move its cursor."""
    return text if text.isprintable() else ascii(text)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 64 MiB. Raises IntegrityError."""
    require_regular(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_CONFIG + 1)
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror}", hint=f"ls -l {path.parent}") from error
    if len(data) > _LARGEST_CONFIG:
        raise IntegrityError(f"{path}: larger than {_LARGEST_CONFIG >> 20} MiB; that is no configuration")
    if not data.strip():
        raise IntegrityError(f"{path}: empty")
    known = impostor(data)
    if known:
        raise IntegrityError(f"{path}: {known}")
    return parse_object(data, source=str(path))


def parse_object(data: bytes, *, source: str) -> dict[str, Any]:
    """The JSON object in `data`: UTF-8, no key twice, no NaN. Raises IntegrityError naming `source`."""
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_without_twins, parse_constant=_refuse, parse_int=_whole
        )
    except RecursionError:
        raise IntegrityError(f"{source}: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{source}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise IntegrityError(f"{source}: not JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise IntegrityError(f"{source}: a JSON {type(value).__name__}, where an object was expected")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twin[:80]!r} stands there twice")
    return found


def _whole(digits: str) -> int:
    if digits == "-0":  # the safetensors library takes it for a fraction
        raise ValueError("-0 is no whole number")
    return int(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
