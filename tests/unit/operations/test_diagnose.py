"""Logs of any origin and size: state, cause, and bounds of time and memory."""

import io
import json
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from deckard_deploy.operations.diagnose import CHUNK, MAX_BYTES, LogReport, diagnose_lines, diagnose_log
from deckard_deploy.startup.phases import Phase
from tests.campaigns import failure_corpus

MEMORY_ERROR = "torch.OutOfMemoryError: CUDA out of memory."
READY = "(APIServer pid=1) INFO:     Application startup complete."
LOADING = (
    "(EngineCore pid=9) INFO 11-30 10:00:07 [gpu_model_runner.py:4736] Starting to load model /models/x..."
)
HOSTILE_BYTES = 20 * 1000 * 1000
MAX_S = 20.0
MAX_PEAK = 100 * MAX_BYTES


def report_of(*lines: str, exit_code: int | None = None) -> LogReport:
    return diagnose_log(io.BytesIO("\n".join(lines).encode()), exit_code)


def signature_of(report: LogReport) -> str | None:
    return report.diagnosis.signature if report.diagnosis else None


def test_failed_start_is_named_with_its_phase():
    report = report_of(LOADING, MEMORY_ERROR)
    assert (report.state, report.phase, signature_of(report)) == (
        "failed",
        Phase.WEIGHTS,
        "cuda-out-of-memory",
    )


def test_ready_engine_has_nothing_fatal():
    assert report_of(LOADING, MEMORY_ERROR, READY) == LogReport("ready", Phase.SERVER, None)


def test_failure_after_ready_counts():
    assert signature_of(report_of(READY, MEMORY_ERROR)) == "cuda-out-of-memory"
    assert report_of(READY, "INFO x", exit_code=137).state == "failed"


def test_failed_request_leaves_the_engine_ready():
    request = "ValidationError: 3 validation errors for ResponseCreatedEvent"
    dead = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."
    assert report_of(READY, request).state == "ready"
    assert report_of(READY, request, dead).state == "failed"
    assert report_of(request).state == "failed"


def test_unfinished_start_names_what_it_may_hang_at():
    report = report_of(LOADING)
    assert (report.state, signature_of(report)) == ("unfinished", "stalled-loading")
    assert report_of("hello") == LogReport("unfinished", Phase.CONTAINER, None)


def test_exit_code_explains_a_log_without_error():
    assert signature_of(report_of(LOADING, exit_code=135)) == "bus-error"
    assert signature_of(report_of(LOADING, exit_code=0)) == "stalled-loading"
    assert signature_of(report_of(LOADING, exit_code=77)) == "unknown"


def test_empty_log_is_unfinished():
    assert report_of().diagnosis is None


@pytest.mark.parametrize(
    "line",
    [
        MEMORY_ERROR,
        f"deckard-b200  | (EngineCore pid=9) {MEMORY_ERROR}",
        f"2026-11-30T10:00:07.123456789Z {MEMORY_ERROR}",
        f"Nov 30 10:00:07 host docker[812]: {MEMORY_ERROR}",
        json.dumps(
            {"log": f"{MEMORY_ERROR}\n", "stream": "stderr", "time": "2026-11-30T10:00:07Z"},
            separators=(",", ":"),
        ),
        f"\x1b[31m{MEMORY_ERROR}\x1b[0m",
        f"[2026-11-30 10:00:07] {MEMORY_ERROR}",
        f"(EngineCore_DP0 pid=9) ERROR 2026-11-30 10:00:07.136 [core.py:871] {MEMORY_ERROR}",
    ],
)
def test_prefix_of_the_source_is_removed(line: str):
    report = report_of(line)
    assert signature_of(report) == "cuda-out-of-memory"
    assert report.diagnosis is not None
    assert report.diagnosis.first_fatal_line == MEMORY_ERROR


def test_unknown_message_of_docker_is_a_failure():
    report = report_of("Error response from daemon: the moon is full")
    assert (report.state, signature_of(report)) == ("failed", "unknown")


def test_clean_lines_are_diagnosed_alike():
    assert diagnose_lines([LOADING, MEMORY_ERROR]) == report_of(LOADING, MEMORY_ERROR)


class Repeated:
    """A stream that repeats a piece up to a number of bytes, and then ends with other bytes."""

    def __init__(self, piece: bytes, size: int, end: bytes) -> None:
        self._chunks = self._all(piece, size, end)

    @staticmethod
    def _all(piece: bytes, size: int, end: bytes) -> Iterator[bytes]:
        chunk = piece * (CHUNK // len(piece) + 1)
        for _ in range(size // len(chunk)):
            yield chunk
        yield end

    def read(self, _size: int, /) -> bytes:
        return next(self._chunks, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        b"a",
        b"\x1b[",
        b"\x1b]0;",
        b"\xff\x00",
        b"ERROR x: y\n",
        b"Traceback (most recent call last):\n",
        b"\n",
        b"   \r",
    ],
    ids=["one-line", "csi", "osc", "binary", "errors", "tracebacks", "blank", "progress"],
)
def test_hostile_log_is_bounded(piece: bytes):
    stream = Repeated(piece, HOSTILE_BYTES, f"\n{MEMORY_ERROR}\n".encode())
    tracemalloc.start()
    began = time.process_time()
    report = diagnose_log(stream)
    took = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert signature_of(report) == "cuda-out-of-memory"
    assert took < MAX_S
    assert peak < MAX_PEAK


def test_corpus_has_no_false_hit(capsys: pytest.CaptureFixture[str]):
    assert failure_corpus.run([]) == 0
    *_, total = capsys.readouterr().out.splitlines()
    assert int(total.split(" logs, ")[1].split()[0]) >= 12, "logs of healthy engines"


def test_false_hit_is_reported():
    healthy = failure_corpus.CorpusLog("x", [READY, MEMORY_ERROR], failure_corpus.HEALTHY)
    assert failure_corpus.check(healthy).false_hit
    other = failure_corpus.CorpusLog("y", [MEMORY_ERROR], "no-space-left")
    assert failure_corpus.check(other).others == ["cuda-out-of-memory"]
