"""A strict parser for JSON from untrusted checkpoints; every error is one line."""

import json
from pathlib import Path
from typing import Any, NoReturn

from deckard_deploy.errors import IntegrityError
from deckard_deploy.system.text import escaped

LARGEST_CONFIG = 64 << 20
# First bytes of files that often replace the expected one.
_WRONG_CONTENT = (
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


def detect_wrong_content(beginning: bytes) -> str | None:
    """Describe the file by its first bytes if it is a known kind other than weights or JSON; else None."""
    start = beginning[:64].lstrip().lower()
    for mark, description in _WRONG_CONTENT:
        if start.startswith(mark):
            return description
    if len(beginning) >= 8 and not any(beginning):
        return "nothing but zeros"
    return None


def require_regular(path: Path) -> None:
    """Raise IntegrityError if the path exists and is not a regular file.

    Reading a FIFO would block, and reading a device might not end.
    """
    if path.exists() and not path.is_file():
        raise IntegrityError(f"{escaped(str(path))}: not a regular file", hint=f"ls -l {path.parent}")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of at most 64 MiB. Raises IntegrityError."""
    return parse_object(_read(path), source=str(path))


def read_array(path: Path) -> list[Any]:
    """Return the JSON array in a file of at most 64 MiB. Raises IntegrityError."""
    value = _parse(_read(path), source=str(path))
    if not isinstance(value, list):
        raise IntegrityError(f"{path}: a JSON {type(value).__name__}, where an array was expected")
    return value


def _read(path: Path) -> bytes:
    require_regular(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_CONFIG + 1)
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror}", hint=f"ls -l {path.parent}") from error
    if len(data) > LARGEST_CONFIG:
        raise IntegrityError(f"{path}: larger than {LARGEST_CONFIG >> 20} MiB; that is no configuration")
    if not data.strip():
        raise IntegrityError(f"{path}: empty")
    wrong_content = detect_wrong_content(data)
    if wrong_content:
        raise IntegrityError(f"{path}: {wrong_content}")
    return data


def parse_object(data: bytes, *, source: str) -> dict[str, Any]:
    """Parse the JSON object in `data`: UTF-8, no duplicate keys, no NaN.

    Raises IntegrityError that names `source`.
    """
    value = _parse(data, source=source)
    if not isinstance(value, dict):
        raise IntegrityError(f"{source}: a JSON {type(value).__name__}, where an object was expected")
    return value


def _parse(data: bytes, *, source: str) -> Any:  # noqa: ANN401  any JSON
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_reject_duplicate_keys,
            parse_constant=_reject_constant,
            parse_int=_parse_int,
        )
    except RecursionError:
        raise IntegrityError(f"{source}: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{source}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise IntegrityError(f"{source}: not JSON: {str(error)[:120]}") from None


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key[:80]!r}")
        found[key] = value
    return found


def _parse_int(digits: str) -> int:
    if digits == "-0":  # the safetensors library reads it as a fraction
        raise ValueError("-0 is no whole number")
    return int(digits)


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
