"""Calibration data: texts or chats of the user's, chosen by a seed and recorded by hash."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.errors import BadInputError
from deckard_deploy.system.text import escaped

BUILTIN = "builtin"
_BUILTIN_FILE = Path(__file__).with_name("builtin.txt")
LARGEST_BYTES = 1 << 30  # it is read whole, and 2048 texts of 512 tokens are a few megabytes
# English has about four characters a token in vocabularies of this size; what is too much for a text is cut by tokens.
_CHARACTERS_PER_TOKEN = 4
_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """The chosen texts, each an object with `text` or `messages`.

    name, sha256: of the file. available: the number of texts in it.
    """

    name: str
    sha256: str
    available: int
    texts: tuple[dict[str, Any], ...]

    @property
    def is_for_rehearsals(self) -> bool:
        """True for the built-in text."""
        return self.name == BUILTIN

    @property
    def has_chats(self) -> bool:
        """True if some need the model's chat template."""
        return any("messages" in text for text in self.texts)

    def write(self, path: Path) -> None:
        """Write the texts, one a line."""
        path.write_text("".join(json.dumps(text) + "\n" for text in self.texts))


def read_calibration(named: str, *, samples: int, sequence_length: int, seed: int) -> CalibrationData:
    """Read a file of text (UTF-8) or of JSON lines, and choose `samples` of its texts.

    named: a path, or BUILTIN. A file of text is cut into pieces of about `sequence_length` tokens.
    Raises BadInputError.
    """
    path = _BUILTIN_FILE if named == BUILTIN else Path(named)
    content = _content(path)
    text = _decoded(path, content)
    if path.suffix in (".jsonl", ".ndjson"):
        found = list(_rows(path, text))
    else:
        found = list(_pieces(text, sequence_length * _CHARACTERS_PER_TOKEN))
    if not found:
        raise BadInputError(
            f"{path}: no text in it", hint="--calibrate FILE with texts like those of your users"
        )
    chosen = found
    if len(found) > samples:
        numbers = sorted(random.Random(seed).sample(range(len(found)), samples))
        chosen = [found[number] for number in numbers]
    return CalibrationData(
        name=BUILTIN if named == BUILTIN else path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        available=len(found),
        texts=tuple(chosen),
    )


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # reading a FIFO may block, reading a device may not end
            raise BadInputError(f"{path}: not a regular file", hint="--calibrate FILE")
        if path.stat().st_size > LARGEST_BYTES:
            raise BadInputError(
                f"{path}: more than {LARGEST_BYTES >> 20} MiB, of which a run uses a few",
                hint=f"head -n 100000 {path} > PART{path.suffix}",
            )
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror or error}", hint="--calibrate FILE, or `builtin` for a rehearsal"
        ) from error


def _decoded(path: Path, content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path}: not UTF-8 text (byte {error.start})",
            hint="texts in UTF-8, or JSON lines in a .jsonl file",
        ) from error
    if "\0" in text:
        raise BadInputError(f"{path}: a NUL character: not a text", hint="texts in UTF-8, or a .jsonl file")
    return text


def _pieces(text: str, length: int) -> Iterator[dict[str, Any]]:
    for begin in range(0, len(text), length):
        piece = text[begin : begin + length]
        if piece.strip():
            yield {"text": piece}


def _rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    # Not splitlines: a text may have a line separator (U+2028) of its own.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"{path}:{number}: not JSON", hint="one object a line") from error
        yield _row(f"{path}:{number}", row)


def _row(where: str, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadInputError(f"{where}: not an object", hint='{"text": …} or {"messages": […]} on each line')
    if isinstance(row.get("text"), str) and row["text"].strip():
        return {"text": row["text"]}
    if isinstance(row.get("messages"), list) and row["messages"]:
        return {"messages": [_message(where, message) for message in row["messages"]]}
    keys = ", ".join(escaped(str(key)[:40]) for key in list(row)[:8])
    raise BadInputError(
        f"{where}: neither `text` nor `messages` with content; keys: {keys or 'none'}",
        hint='{"text": …} or {"messages": […]} on each line',
    )


def _message(where: str, message: object) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise BadInputError(f"{where}: a message without a role of {', '.join(_ROLES)}")
    if not isinstance(message.get("content"), str):
        raise BadInputError(f"{where}: a message whose content is no text")
    return {"role": message["role"], "content": message["content"]}
