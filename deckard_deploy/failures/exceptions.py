"""The exceptions in a log: the last line of a traceback, whatever the name of its class."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from deckard_deploy.failures.log_lines import LogLine
from deckard_deploy.failures.matching import may_be_fatal

# Lines by which one process reports that another has failed.
_ECHOES = (
    re.compile(r"Engine core initialization failed\. See root cause above"),  # v1/engine/utils.py:1058
    re.compile(
        r"WorkerProc initialization failed due to an exception"
    ),  # v1/executor/multiproc_executor.py:711
    re.compile(r"EngineCore encountered an issue\. See stack trace"),  # v1/engine/exceptions.py:13
    re.compile(
        r"please check the stack trace above for the root cause"
    ),  # v1/executor/multiproc_executor.py:381
    re.compile(r"See stack trace above for the actual cause"),  # up to 0.8: engine/async_llm_engine.py
    re.compile(r"^(?:\w+\.)*(?:CancelledError|KeyboardInterrupt)"),
)
_HEADER = "Traceback (most recent call last):"
# The last line of a traceback, where its first line is known: a dotted name, alone or with a message.
_LAST_LINE = re.compile(r"[A-Za-z_][\w.]*(?:: |:?$)", re.ASCII)
# The same without a first line: the name of the class has an exception's ending, or a module before it.
_EXCEPTION = re.compile(
    r"(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Timeout|Expired)|[a-z_]\w*(?:\.\w+)*\.[A-Z]\w*)(?:: |:?$)",
    re.ASCII,
)
_FRAME = re.compile(r' *File "(?P<path>[^"]{1,300})", line \d+')
# The message of these goes on below: the invalid value of pydantic, the cause of torch's compiler.
_CONTINUED = re.compile(r" validation errors? for |raised:$")


class LoggedException(NamedTuple):
    """The last line of a traceback, and the source files of its frames, innermost first."""

    text: str
    files: list[str]


def exceptions(lines: Iterable[LogLine]) -> Iterator[LoggedException]:
    """Yield the exceptions without echoes. Python prints root causes first."""
    lines = list(lines)
    open_tracebacks: set[str] = set()  # by process, because their lines alternate
    files: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        if frame := _FRAME.match(line.text):
            files.setdefault(line.process, []).insert(0, frame["path"])
        if not may_be_fatal(line):
            continue
        if line.text.strip() == _HEADER:
            open_tracebacks.add(line.process)
            files[line.process] = []
            continue
        pattern = _LAST_LINE if line.process in open_tracebacks else _EXCEPTION
        if not pattern.match(line.text):
            continue
        open_tracebacks.discard(line.process)
        frames = files.pop(line.process, [])
        if not any(echo.search(line.text) for echo in _ECHOES):
            yield LoggedException(_with_continuation(line.text, islice(lines, number + 1, None)), frames)


def _with_continuation(text: str, following: Iterable[LogLine]) -> str:
    parts = [text]
    if _CONTINUED.search(text):
        parts += [line.text for line in islice(filter(may_be_fatal, following), 2)]
    return " ".join(part.strip() for part in parts)
