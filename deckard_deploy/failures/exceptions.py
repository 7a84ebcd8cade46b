"""The exceptions in a log: the last line of a traceback, whatever the name of its class."""

import re
from collections.abc import Iterable, Iterator, Sequence

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
# The message of these goes on below: the invalid value of pydantic, the cause of torch's compiler.
_CONTINUED = re.compile(r" validation errors? for |raised:$")


def exceptions(lines: Iterable[LogLine]) -> Iterator[str]:
    """Yield the last lines of tracebacks without echoes. Python prints root causes first."""
    candidates = [line for line in lines if may_be_fatal(line)]
    open_tracebacks: set[str] = set()  # by process, because their lines alternate
    for number, line in enumerate(candidates):
        text = line.text
        if text.strip() == _HEADER:
            open_tracebacks.add(line.process)
            continue
        pattern = _LAST_LINE if line.process in open_tracebacks else _EXCEPTION
        if not pattern.match(text):
            continue
        open_tracebacks.discard(line.process)
        if not any(echo.search(text) for echo in _ECHOES):
            yield _with_continuation(text, candidates[number + 1 : number + 3])


def _with_continuation(text: str, following: Sequence[LogLine]) -> str:
    parts = [text]
    if _CONTINUED.search(text):
        parts += [line.text for line in following]
    return " ".join(part.strip() for part in parts)
