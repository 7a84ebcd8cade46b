"""Lines of progress for work whose size in bytes is known."""

import time
from collections.abc import Callable

from deckard_deploy.system.text import clock

_LINES = 20  # for all of the work: one for every 5 %
GB = 1e9


class ByteLines:
    """One line for every 5 %, with the time left at the mean rate since the first call."""

    def __init__(
        self, say: Callable[[str], None], label: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Store the arguments. label: what a line begins with."""
        self._say = say
        self._label = label
        self._now = now
        self._shown = 0
        self._began: float | None = None
        self._first = 0

    def show(self, done: int, total: int) -> None:
        """Report the bytes that are done, of the bytes that are known so far. The total may grow."""
        if self._began is None:
            self._began = self._now()
            self._first = done
        if not total or done * _LINES // total <= self._shown:
            return
        self._shown = done * _LINES // total
        line = f"{self._label} {done / GB:.1f} of {total / GB:.1f} GB"
        elapsed_s = self._now() - self._began
        if elapsed_s and self._first < done < total:
            rate = (done - self._first) / elapsed_s
            line += f", about {clock((total - done) / rate)} left"
        self._say(line)
