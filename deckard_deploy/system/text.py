"""Text that is safe to show, made from text that another program wrote.

A server's log is written by everybody who can talk to the server. It is cleaned here, once, where its bytes
enter: LineSplitter for a stream, `clean_lines` for a whole file, RawLineSplitter and `clean_bytes` for a stream
whose lines begin with something of another program. All code behind that reads clean lines.
"""

import re
import textwrap

MAX_LINE = 16_384  # characters; vLLM's longest line, its configuration at start, has about 4,000
# CSI and OSC sequences (ECMA-48 5.4 and 8.3.89), other two-character escapes, and what is left of the C0 and
# C1 sets.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Return one line without terminal sequences and control characters, cut at MAX_LINE.

    Of a progress bar, which overwrites itself by `\\r`, only the last state stays.
    """
    text = _SEQUENCE.sub("", text.rstrip("\r"))
    text = _CONTROL.sub("", text.rpartition("\r")[2])  # guard: F32a
    if len(text) > MAX_LINE:
        return text[:MAX_LINE] + "…"
    return text


def clean_bytes(line: bytes) -> str:
    """Return one line as clean text. Bytes that are not UTF-8 are replaced."""
    return clean(line.decode(errors="replace"))


class RawLineSplitter:
    """Split bytes that arrive in pieces into lines. Where the pieces were cut makes no difference."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their newline."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        if len(self._rest) > 4 * MAX_LINE:  # a line without end: keep its beginning, drop the rest
            if not self._skipping:
                lines.append(self._rest[: 4 * MAX_LINE])
            self._rest, self._skipping = b"", True
        return lines


class LineSplitter:
    """Split bytes that arrive in pieces into clean lines. Where the pieces were cut makes no difference."""

    def __init__(self) -> None:
        self._raw = RawLineSplitter()

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes."""
        return [clean_bytes(line) for line in self._raw.feed(data)]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return the text in lines of at most `width` columns; all but the first begin with `indent`.

    No word is cut: an option like --max-model-len stays whole, and a longer word has a line to itself.
    """
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def clock(seconds: float) -> str:
    """Return a duration as `0:07` or `12:30`."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def clean_lines(data: bytes) -> list[str]:
    """Return the clean lines of a whole log. The last line may lack its newline."""
    if not data.endswith(b"\n"):
        data += b"\n"
    return LineSplitter().feed(data)


def printable(text: str) -> str:
    """Return the text with a space in place of each character that cannot be printed."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def escaped(text: str) -> str:
    """Return the text with escapes, like `\\x1b`, if it has a character that could control a terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]


def shorten(text: str, limit: int) -> str:
    """Return at most `limit` characters of the text; a cut text ends with `…`."""
    if len(text) <= limit:
        return text
    return text[: limit - 1] + "…"


def last_line(text: str) -> str:
    """Return the last line that is not blank, stripped; an empty string if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1]


def one_line(text: str, limit: int = 160) -> str:
    """Return the last line that is not blank, printable and at most `limit` characters long."""
    return shorten(printable(last_line(text)), limit)
