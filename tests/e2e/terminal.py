"""A program on a terminal of its own, read as a person reads it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable

import pyte


class Terminal:
    """A pseudo terminal with a program on it; `text` is what its screen shows."""

    def __init__(
        self, command: list[str], environment: dict[str, str], *, columns: int = 80, rows: int = 24
    ) -> None:
        self._ours, theirs = pty.openpty()
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self._ours)
        clean = {
            key: value for key, value in environment.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],  # so that ^C arrives as a signal
            stdin=theirs, stdout=theirs, stderr=theirs, env={**clean, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window, as dragging its corner does."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    @property
    def text(self) -> str:
        """The screen's rows as they are now."""
        return "\n".join(row.rstrip() for row in self._screen.display)

    @property
    def attributes(self) -> list[object]:
        """The terminal's settings: echo, line mode and so on."""
        return list(termios.tcgetattr(self._ours))

    def until(self, holds: Callable[[str], bool], timeout_s: float = 60) -> str:
        """Read until the screen is as wanted. Raises AssertionError with the screen when it never is."""
        deadline = time.monotonic() + timeout_s
        while not holds(self.text):
            assert time.monotonic() < deadline, f"never seen on:\n{self.text}"
            self._read(0.1)
        return self.text

    def end(self, timeout_s: float = 20) -> int:
        """Read until the program ends; its exit code."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running:\n{self.text}"
            self._read(0.1)
        return self.process.returncode

    def close(self) -> None:
        """Whatever became of the program, it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _read(self, timeout_s: float) -> None:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return
        try:
            self._stream.feed(os.read(self._ours, 1 << 16))
        except OSError:  # EIO: the last one on the other side has gone
            time.sleep(timeout_s)
