"""One line of an engine's log, parsed: the process that wrote it, its level, and its text.

Lines come here clean (system/text.py); only prefixes are removed.
"""

import re
from dataclasses import dataclass

MAX_TEXT = 4000  # characters; vLLM prints its whole configuration on one line

# `docker logs --timestamps`: RFC 3339 with nanoseconds.
_DOCKER_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) ?", re.ASCII)
# `docker compose logs`: the service, padded, and a bar. `journalctl`: time, host, unit with its pid.
_COMPOSE = re.compile(r"[A-Za-z0-9][\w.-]{0,60} {1,40}\| ?", re.ASCII)
_JOURNAL = re.compile(
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,60} [\w.@/-]{1,60}(?:\[\d+\])?: ", re.ASCII
)
# torch/distributed: the rank, before the lines of a traceback and of c10.
_RANK = re.compile(r"\[rank\d+\]: ?", re.ASCII)
# vllm/utils/system_utils.py:204: f"({worker_name} pid={pid}) "; Ray adds words and an address.
_PROCESS = re.compile(r"\((?P<process>[A-Za-z]\w*)(?: [\w=]+)? pid=\d+(?:, ip=[\d.]+)?\) ?", re.ASCII)
# Wrappers that log the output of vLLM: a time in brackets, and at times the program.
_BRACKETS = re.compile(r"\[\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[^\]]{0,20}\] (?:\[[^\]]{1,40}\]: )?", re.ASCII)
# Docker Desktop's view of a log: date and time. Hosting services: the name of the service.
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?! ?-)", re.ASCII)
_SERVICE = re.compile(r"\[[A-Za-z][\w./-]{0,60}\]: ", re.ASCII)
_PREFIXES = (_DOCKER_TIME, _COMPOSE, _JOURNAL, _DATE, _SERVICE, _BRACKETS, _RANK)
# vllm/logger.py:22: level, month-day, time, [file:line]. Up to 0.8 without the first bracket.
_VLLM = re.compile(
    r"(?P<level>[A-Z]{4,8}) (?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? (?:\[[^\]]*|[\w./]{1,80}:\d+)\] ?",
    re.ASCII,
)
# uvicorn/logging.py DefaultFormatter: level, colon, padding. Python's basicConfig: level, logger, message.
_UVICORN = re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):(?: +|[\w.]+:)")
# flashinfer/jit/core.py:56 (flashinfer-python 0.6.6): asctime - level - file:line - flashinfer.jit: message.
_ASCTIME = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+ - (?P<level>[A-Z]+) - (?:\S+:\d+ - flashinfer\.jit: )?", re.ASCII
)
# torch's own records: letter, month and day (c10 writes no leading zero), time, thread, [file:line].
_GLOG = re.compile(r"\[?(?P<level>[IWEF])\d{3,4} \d\d:\d\d:\d\d\.\d+ [^\]]*\] ?", re.ASCII)
# Python's warnings.warn, on stderr.
_WARNING = re.compile(r"\S+\.py:\d+: \w*(?P<level>Warning): ", re.ASCII)
# NCCL with NCCL_DEBUG=INFO: host, pid, thread, [device].
_NCCL = re.compile(r"\S+:\d+:\d+ \[\d+\] NCCL (?P<level>INFO|TRACE) ", re.ASCII)
# The daemons of docker and containerd (logrus).
_LOGRUS = re.compile(r'time="[^"]*" level=(?P<level>[a-z]+) ')
_RECORDS = (_VLLM, _UVICORN, _ASCTIME, _GLOG, _WARNING, _NCCL, _LOGRUS)
_HARMLESS = frozenset({"TRACE", "DEBUG", "INFO", "WARNING", "I", "W"})
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

    @property
    def harmless(self) -> bool:
        """True for a record of a level below ERROR."""
        return self.level.upper() in _HARMLESS


def parse(line: str) -> LogLine:
    """Return the parts of a clean line; its text is cut at MAX_TEXT, and may be empty."""
    text = line[:MAX_TEXT]
    for prefix in _PREFIXES:
        if found := prefix.match(text):
            text = text[found.end() :]
    process = ""
    while found := _PROCESS.match(text):
        process = found["process"]
        text = text[found.end() :]
    text = _RANK.sub("", text, count=1)
    for record in _RECORDS:
        if found := record.match(text):
            return LogLine(process, found["level"], text[found.end() :].rstrip())
    return LogLine(process, "", text.rstrip())


def without_secrets(text: str) -> str:
    """Return the text with hub tokens, bearer tokens and keys of echoed command lines replaced by `***`."""
    return _SECRET.sub("***", text)
