"""One line of a container's log, taken apart: which process wrote it, at what level, and the text itself."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_TEXT = 4000  # characters; vLLM prints its whole configuration on one line

# ECMA-48 escape sequences: colours, cursor moves, and the title-setting kind that ends with BEL or ESC \.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
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
_SECRET = re.compile(
    r"(?<='api_key': )\[[^\]]*\]|hf_[A-Za-z0-9]{8,}|(?<=Bearer )\S+|(?<=--api-key[ =])\S+|(?<=--hf-token[ =])\S+"
)


@dataclass(frozen=True)
class LogLine:
    """`process` and `level` are empty where the line names none, as tracebacks on stderr do."""

    process: str
    level: str
    text: str


def read_lines(raw: str) -> Iterator[LogLine]:
    """The lines that `raw` holds: a progress bar overwrites itself with carriage returns, so there may be several."""
    for piece in re.split(r"[\r\n]+", raw):
        line = _read(piece)
        if line.text:
            yield line


def without_secrets(text: str) -> str:
    """The text with hub tokens, bearer tokens and keys of echoed command lines blotted out."""
    return _SECRET.sub("***", text)


def _read(piece: str) -> LogLine:
    text = _CONTROL.sub("", _ESCAPE.sub("", piece[: 2 * MAX_TEXT]))[:MAX_TEXT]
    if time := _DOCKER_TIME.match(text):
        text = text[time.end() :]
    process = ""
    while named := _PROCESS.match(text):
        process, text = named["process"], text[named.end() :]
    for layout in (_VLLM, _UVICORN, _FLASHINFER, _GLOG):
        if found := layout.match(text):
            return LogLine(process, found["level"], text[found.end() :].rstrip())
    return LogLine(process, "", text.rstrip())
