"""The faults between the hub and a pull, F1 to F12.

A case is a sentence and a scenario that asserts how a pull survives. The same scenario must fail with a copy of the
package that lacks the guard (the line with the mark `# guard: F1`, see tests/faults/guards.py), with `otherwise` in
its failed assertion.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.support.hub_server import Answer, flipped
from tests.support.pull_sandbox import (
    BIG,
    PullResult,
    PullSandbox,
    always,
    drip,
    ended,
    half,
    once_each,
    shifted,
    status,
    times,
    whole_file,
)
from tests.support.waiting import eventually

Scenario = Callable[[PullSandbox], None]


class DownloadFault(NamedTuple):
    """`said` is the text that a user reads, `otherwise` part of the failed assertion without the guard."""

    number: str
    fault: str
    said: str
    otherwise: str
    scenario: Scenario
    instead: str | None


DOWNLOAD_FAULTS: list[DownloadFault] = []


def case(
    number: str, fault: str, said: str, *, otherwise: str, instead: str | None = None
) -> Callable[[Scenario], Scenario]:
    """Add the decorated scenario to the cases."""

    def add(scenario: Scenario) -> Scenario:
        DOWNLOAD_FAULTS.append(DownloadFault(number, fault, said, otherwise, scenario, instead))
        return scenario

    return add


@case(
    "F1",
    "the connection is cut in the middle of every segment",
    "nothing: it goes on where it was",
    otherwise="1 times in a row",
    instead="True",
)
def cut(sandbox: PullSandbox) -> None:
    sandbox.hub.fault = once_each(half)
    found = sandbox.pull()
    assert found.code == 0, found
    assert sandbox.is_right(), "the files are not right"
    assert sandbox.hub.sent < len(sandbox.hub.files[BIG]) + 1000, "what had come was fetched again"


@case(
    "F2",
    "kill -9 in the middle",
    "nothing; the same command goes on where it was",
    otherwise="was fetched again",
    instead="True",
)
def killed(sandbox: PullSandbox) -> None:
    interrupted(sandbox, signal.SIGKILL, sandbox.begin)
    sandbox.hub.ranges.clear()
    assert sandbox.pull().code == 0
    assert sandbox.is_right(), "the files are not right"
    assert sandbox.hub.served(BIG) < len(sandbox.hub.files[BIG]) - 500_000, "what had come was fetched again"


def interrupted(
    sandbox: PullSandbox, number: signal.Signals, begin: Callable[[], "subprocess.Popen[str]"]
) -> PullResult:
    """Send the signal when half of each connection's range has arrived."""
    came, release = threading.Semaphore(0), threading.Event()

    def stop_half_way(answer: Answer, name: str, start: int, end: int) -> bool:
        data = answer.hub.files[name]
        answer.head(data, start, end)
        answer.wfile.write(data[start : (start + end) // 2])
        came.release()
        release.wait(60)
        return True

    sandbox.hub.fault = times(10**6, stop_half_way)
    process = begin()
    assert came.acquire(timeout=60)
    eventually(lambda: journalled(sandbox) > 500_000)
    process.send_signal(number)
    found = ended(process)
    release.set()
    sandbox.hub.fault = lambda *_: False
    return found


def journalled(sandbox: PullSandbox) -> int:
    """Return the bytes on disk of unfinished files."""
    return sum(path.stat().st_blocks * 512 for path in sandbox.root.rglob("parts/*.part"))


@case(
    "F3",
    "SIGTERM, or ^C, in the middle",
    "interrupted, 130: what came is kept: the same command goes on there",
    otherwise="code=-15",
)
def terminated(sandbox: PullSandbox) -> None:
    sandbox.folder = sandbox.root / "state" / "models" / "deckard-31b"
    command = ["-m", "deckard_deploy", "pull", "--profile", "spark"]
    found = interrupted(sandbox, signal.SIGTERM, lambda: sandbox.start(*command))
    assert found.code == 130, found
    assert "what came is kept: the same command goes on there" in found.message
    assert ".part" in sandbox.parts()
    assert ended(sandbox.start(*command)).code == 0
    assert sandbox.is_right(), "the files are not right"


@case(
    "F4",
    "one bit is wrong, the length is right",
    "what came has hash …, not …; once more",
    otherwise="the files are not right",
    instead="True",
)
def wrong_bit(sandbox: PullSandbox) -> None:
    sandbox.hub.fault = times(1, flipped)
    found = sandbox.pull()
    assert sandbox.is_right(), "the files are not right"
    assert "once more" in str(found.said)


@case(
    "F5",
    "a bit rots later, and the file keeps its size and times",
    "its content is not what was published; fetched again",
    otherwise="the files are not right",
    instead="0",
)
def rotten(sandbox: PullSandbox) -> None:
    assert sandbox.pull().code == 0
    path = sandbox.folder / BIG
    before, data = path.stat(), bytearray(path.read_bytes())
    data[1234] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = sandbox.pull()
    assert sandbox.is_right(), "the files are not right"
    assert "not what was published" in str(found.said)


@case(
    "F6",
    "the server answers a range with the whole file",
    "the server knows no ranges; from the start, over one connection",
    otherwise="the hub sent other bytes",
)
def no_ranges(sandbox: PullSandbox) -> None:
    sandbox.hub.fault = always(whole_file)
    found = sandbox.pull()
    assert found.code == 0, found
    assert sandbox.is_right(), "the files are not right"


@case(
    "F7",
    "the server sends another range than the one asked for",
    "asked for bytes …, and Content-Range is …, 2 times in a row",
    otherwise="the hub sent other bytes",
)
def wrong_range(sandbox: PullSandbox) -> None:
    sandbox.hub.fault = always(shifted)
    found = sandbox.pull()
    assert found.names(5, "Content-Range is", "the same command again"), found
    assert not (sandbox.folder / BIG).exists()
    sandbox.hub.fault = lambda *_: False
    assert sandbox.pull().code == 0
    assert sandbox.is_right(), "the files are not right"


@case(
    "F8",
    "429 with Retry-After",
    "HTTP 429; again in 1 s",
    otherwise="HTTP 429, 2 times in a row",
)
def too_many_requests(sandbox: PullSandbox) -> None:
    first: list[float] = []

    def busy(answer: Answer, name: str, start: int, end: int) -> bool:
        first.append(time.monotonic())
        return time.monotonic() < first[0] + 0.9 and status(429, Retry_After="1")(answer, name, start, end)

    sandbox.hub.fault = always(busy)
    found = sandbox.pull()
    assert found.code == 0, found
    assert "HTTP 429; again in 1 s" in str(found.said)


@case(
    "F9",
    "500 on each connection",
    "nothing, or: HTTP 500, 7 times in a row",
    otherwise="model.safetensors: HTTP 500'",
)
def server_error(sandbox: PullSandbox) -> None:
    sandbox.hub.fault = once_each(status(500))
    found = sandbox.pull()
    assert found.code == 0, found
    assert sandbox.is_right(), "the files are not right"


@case(
    "F10",
    "the server crawls, a byte now and then",
    "stalled: 10 bytes/s for 20 s, 7 times in a row",
    otherwise="IncompleteRead",
)
def crawling(sandbox: PullSandbox) -> None:
    sandbox.hub.fault = always(drip)
    found = sandbox.pull("impatient")
    assert found.names(5, "stalled", "the same command again"), found


@case(
    "F11",
    "a gated repository: 401 or 403",
    "accept the licence at …, then: hf auth login",
    otherwise="deckard-deploy lock --check",
)
def gated(sandbox: PullSandbox) -> None:
    sandbox.hub.api_status = [(403, {"X-Error-Code": "GatedRepo"})]
    found = sandbox.pull()
    assert found.names(5, "is gated", "accept the licence", "hf auth login"), found
    sandbox.hub.fault = always(status(403))
    found = sandbox.pull()
    assert found.names(5, "accept the licence", "hf auth login"), found


@case(
    "F12",
    "the revision is gone (404), or the repository has another name (307)",
    "owner/model has no revision …; look at …/commits/main",
    otherwise="only for those who may see it",
)
def moved(sandbox: PullSandbox) -> None:
    sandbox.hub.api_status = [(404, {"X-Error-Code": "RevisionNotFound"})]
    found = sandbox.pull()
    assert found.names(5, "has no revision", "/commits/main"), found
    sandbox.hub.moved_to = "owner/new-name"
    assert sandbox.pull().code == 0
    assert sandbox.is_right(), "the files are not right"
