"""Bytes of a server's log -> lines that are safe to show: a log is written by whoever talks to the server."""

import re

LONGEST = 16_384  # characters; vLLM's longest line, its configuration at start, has about 4,000
# CSI and OSC sequences (ECMA-48 5.4 and 8.3.89), other two-character escapes, and what is left of the C0 and C1 sets.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """One line without terminal sequences or control characters; a progress bar's last state after `\\r`."""
    text = _SEQUENCE.sub("", text.rstrip("\r"))
    text = _CONTROL.sub("", text.rpartition("\r")[2])  # guard: F32a
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


class LineSplitter:
    """Feed bytes cut anywhere; get whole lines. The same lines however the bytes were cut."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = []
        for line in whole:
            if not self._skipping:
                lines.append(clean(line.decode(errors="replace")))
            self._skipping = False
        if len(self._rest) > 4 * LONGEST:  # a line without end: its head is shown, the rest let go
            if not self._skipping:
                lines.append(clean(self._rest[: 4 * LONGEST].decode(errors="replace")))
            self._rest, self._skipping = b"", True
        return lines
