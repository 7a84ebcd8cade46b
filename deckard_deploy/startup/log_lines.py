"""One line of an engine's log, parsed: the process that wrote it, its level, and its text.

Lines come here clean (system/text.py); only prefixes are removed.
"""

import re
from dataclasses import dataclass

MAX_TEXT = 4000  # characters; vLLM prints its whole configuration on one line

# `docker logs --timestamps`: RFC 3339 with nanoseconds.
_DOCKER_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) ?", re.ASCII)
# vllm/utils/system_utils.py:204: f"({worker_name} pid={pid}) "
_PROCESS = re.compile(r"\((?P<process>[A-Za-z]\w*) pid=\d+\) ?", re.ASCII)
# vllm/logger.py:22: level, month-day, time, [file:line].
_VLLM = re.compile(r"(?P<level>[A-Z]{4,8}) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[[^\]]*\] ?", re.ASCII)
# uvicorn/logging.py DefaultFormatter: level, colon, padding.
_UVICORN = re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL): +")
# flashinfer/jit/core.py:56 (flashinfer-python 0.6.6): asctime - level - file:line - flashinfer.jit: message.
_FLASHINFER = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ - (?P<level>[A-Z]+) - \S+:\d+ - flashinfer\.jit: ", re.ASCII
)
# torch's own records: letter, month and day, time, thread, [file:line]; c10 puts them in brackets.
_GLOG = re.compile(r"\[?(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ [^\]]*\] ?", re.ASCII)
_RECORDS = (_VLLM, _UVICORN, _FLASHINFER, _GLOG)
_SECRET = re.compile(
    r"(?<='api_key': )\[[^\]]*\]"
    r"|hf_[A-Za-z0-9]{8,}"
    r"|(?<=Bearer )\S+"
    r"|(?<=--api-key[ =])\S+"
    r"|(?<=--hf-token[ =])\S+"
)


@dataclass(frozen=True)
class LogLine:
    """`process` and `level` are empty where the line names none, as in tracebacks on stderr."""

    process: str
    level: str
    text: str


def parse(line: str) -> LogLine:
    """Return the parts of a clean line; its text is cut at MAX_TEXT, and may be empty."""
    text = line[:MAX_TEXT]
    if time := _DOCKER_TIME.match(text):
        text = text[time.end() :]
    process = ""
    while prefix := _PROCESS.match(text):
        process = prefix["process"]
        text = text[prefix.end() :]
    for record in _RECORDS:
        if found := record.match(text):
            return LogLine(process, found["level"], text[found.end() :].rstrip())
    return LogLine(process, "", text.rstrip())


def without_secrets(text: str) -> str:
    """Return the text with hub tokens, bearer tokens and keys of echoed command lines replaced by `***`."""
    return _SECRET.sub("***", text)
