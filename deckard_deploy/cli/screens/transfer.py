"""The progress of a transfer, on stderr."""

import os
import sys
import time

import click

_PLAIN_LINE_S = 10.0


_TERMINAL_LINE_S = 0.2


_RATE_WINDOW_S = 5.0


class Display:
    """Progress on stderr: one line that is rewritten on a terminal, a plain line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        """Shows nothing until bytes come."""
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._shown_at = self._window_at = time.monotonic()
        self._window_bytes: int | None = None
        self._rate = 0.0

    def show(self, done: int, total: int) -> None:
        """Bytes there and bytes in all."""
        now = time.monotonic()
        if self._window_bytes is None:
            self._window_bytes, self._window_at = done, now
        if now - self._window_at >= _RATE_WINDOW_S:
            self._rate = (done - self._window_bytes) / (now - self._window_at)
            self._window_bytes, self._window_at = done, now
        if now - self._shown_at < (_TERMINAL_LINE_S if self._terminal else _PLAIN_LINE_S):
            return
        self._shown_at = now
        rest = (
            f", {self._rate / 1e6:.0f} MB/s, {_clock((total - done) / self._rate)} left"
            if self._rate > 0
            else ""
        )
        line = f"weights  {self._name}: {done / 1e9:.2f} of {total / 1e9:.2f} GB{rest}"
        # A line that wraps cannot be rewritten: every look would leave another one behind.
        shown = f"\r\x1b[2K{line[: _columns() - 1]}" if self._terminal else line
        click.echo(shown, err=True, nl=not self._terminal)

    def end(self) -> None:
        """Leave the terminal on a line of its own."""
        if self._terminal and self._window_bytes is not None:
            click.echo(err=True)


def _columns() -> int:
    """Of the terminal on stderr; 80 where it does not know."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
