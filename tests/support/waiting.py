"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 60
Found = TypeVar("Found")


def eventually(holds: Callable[[], Found], within_s: float = DEADLINE_S) -> Found:
    """Return the first true result; the deadline only ends a test that has failed."""
    until, pause_s = time.monotonic() + within_s, 0.02
    while not (result := holds()):
        assert time.monotonic() < until, "it never came true"
        time.sleep(pause_s)
        pause_s = min(
            1.2 * pause_s, 0.1
        )  # to ask docker fifty times a second would slow down what is waited for
    return result
