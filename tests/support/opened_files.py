"""The files that code opens, counted by name."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_COUNTERS: list[Counter[str]] = []


@cache
def _install() -> None:
    """Count the calls of `os.open`, which `open` makes too. An audit hook cannot be removed again."""

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not _COUNTERS:
            return
        path, mode, _ = arguments
        if mode is None and isinstance(path, str | os.PathLike):
            for counter in _COUNTERS:
                counter[os.path.basename(path)] += 1  # noqa: PTH119  a hook must be quick

    sys.addaudithook(count)


@contextmanager
def counting_opens() -> Iterator[Counter[str]]:
    """Yield the number of opens by file name, of this process from now on."""
    _install()
    counter: Counter[str] = Counter()
    _COUNTERS.append(counter)
    try:
        yield counter
    finally:
        _COUNTERS.remove(counter)
