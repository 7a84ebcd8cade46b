"""The progress of a transfer as plain lines on stderr; transfer_live.py draws it on a terminal."""

import time

from deckard_deploy.cli.output import say
from deckard_deploy.system.text import clock

LINE_INTERVAL_S = 10.0
GB, MB = 1e9, 1e6


def transfer_line(name: str, done: int, total: int, rate: float | None) -> str:
    """Return the progress as text.

    done, total: bytes. rate: bytes a second; None or 0 when it is not known.
    """
    text = f"weights  {name}: {done / GB:.2f} of {total / GB:.2f} GB"
    if not rate:
        return text
    return f"{text}, {rate / MB:.0f} MB/s, {clock((total - done) / rate)} left"


class PlainDisplay:
    """A line every 10 s, with the rate since the line before. Nothing is printed until bytes arrive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._printed_at = time.monotonic()
        self._measured_at: float | None = None
        self._measured_bytes = 0

    def show(self, done: int, total: int) -> None:
        """Print the progress if the last line is 10 s old. done, total: bytes."""
        now = time.monotonic()
        if self._measured_at is None:
            self._measured_at = now
            self._measured_bytes = done
        if now - self._printed_at < LINE_INTERVAL_S:
            return
        elapsed_s = now - self._measured_at
        rate = (done - self._measured_bytes) / elapsed_s if elapsed_s else None
        say(transfer_line(self._name, done, total, rate))
        self._printed_at = now
        self._measured_at = now
        self._measured_bytes = done
