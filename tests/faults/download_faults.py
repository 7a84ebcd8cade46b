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


class Case(NamedTuple):
    """`said` is the text that a user reads, `otherwise` part of the failed assertion without the guard."""

    number: str
    fault: str
    said: str
    otherwise: str
    scenario: Scenario
    instead: str | None


CASES: list[Case] = []


def case(
    number: str, fault: str, said: str, *, otherwise: str, instead: str | None = None
) -> Callable[[Scenario], Scenario]:
    """Add the decorated scenario to the cases."""

    def add(scenario: Scenario) -> Scenario:
        CASES.append(Case(number, fault, said, otherwise, scenario, instead))
        return scenario

    return add


@case(
    "F1",
    "the connection is cut in the middle of every segment",
    "nothing: it goes on where it was",
    otherwise="1 times in a row",
    instead="True",
)
def cut(site: PullSandbox) -> None:
    site.hub.fault = once_each(half)
    found = site.pull()
    assert found.code == 0, found
    assert site.is_right(), "the files are not right"
    assert site.hub.sent < len(site.hub.files[BIG]) + 1000, "what had come was fetched again"


@case(
    "F2",
    "kill -9 in the middle",
    "nothing; the same command goes on where it was",
    otherwise="was fetched again",
    instead="True",
)
def killed(site: PullSandbox) -> None:
    interrupted(site, signal.SIGKILL, site.begin)
    site.hub.ranges.clear()
    assert site.pull().code == 0
    assert site.is_right(), "the files are not right"
    assert site.hub.served(BIG) < len(site.hub.files[BIG]) - 500_000, "what had come was fetched again"


def interrupted(
    site: PullSandbox, number: signal.Signals, begin: Callable[[], "subprocess.Popen[str]"]
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

    site.hub.fault = times(10**6, stop_half_way)
    process = begin()
    assert came.acquire(timeout=60)
    eventually(lambda: journalled(site) > 500_000)
    process.send_signal(number)
    found = ended(process)
    release.set()
    site.hub.fault = lambda *_: False
    return found


def journalled(site: PullSandbox) -> int:
    """Return the bytes on disk of unfinished files."""
    return sum(path.stat().st_blocks * 512 for path in site.root.rglob("parts/*.part"))


@case(
    "F3",
    "SIGTERM, or ^C, in the middle",
    "interrupted, 130: what came is kept: the same command goes on there",
    otherwise="code=-15",
)
def terminated(site: PullSandbox) -> None:
    site.folder = site.root / "state" / "models" / "deckard-31b"
    command = ["-m", "deckard_deploy", "pull", "--profile", "spark"]
    found = interrupted(site, signal.SIGTERM, lambda: site.start(*command))
    assert found.code == 130, found
    assert "what came is kept: the same command goes on there" in found.message
    assert ".part" in site.parts()
    assert ended(site.start(*command)).code == 0
    assert site.is_right(), "the files are not right"


@case(
    "F4",
    "one bit is wrong, the length is right",
    "what came has hash …, not …; once more",
    otherwise="the files are not right",
    instead="True",
)
def wrong_bit(site: PullSandbox) -> None:
    site.hub.fault = times(1, flipped)
    found = site.pull()
    assert site.is_right(), "the files are not right"
    assert "once more" in str(found.said)


@case(
    "F5",
    "a bit rots later, and the file keeps its size and times",
    "its content is not what was published; fetched again",
    otherwise="the files are not right",
    instead="0",
)
def rotten(site: PullSandbox) -> None:
    assert site.pull().code == 0
    path = site.folder / BIG
    before, data = path.stat(), bytearray(path.read_bytes())
    data[1234] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = site.pull()
    assert site.is_right(), "the files are not right"
    assert "not what was published" in str(found.said)


@case(
    "F6",
    "the server answers a range with the whole file",
    "the server knows no ranges; from the start, over one connection",
    otherwise="the hub sent other bytes",
)
def no_ranges(site: PullSandbox) -> None:
    site.hub.fault = always(whole_file)
    found = site.pull()
    assert found.code == 0, found
    assert site.is_right(), "the files are not right"


@case(
    "F7",
    "the server sends another range than the one asked for",
    "asked for bytes …, and Content-Range is …, 2 times in a row",
    otherwise="the hub sent other bytes",
)
def wrong_range(site: PullSandbox) -> None:
    site.hub.fault = always(shifted)
    found = site.pull()
    assert found.names(5, "Content-Range is", "the same command again"), found
    assert not (site.folder / BIG).exists()
    site.hub.fault = lambda *_: False
    assert site.pull().code == 0
    assert site.is_right(), "the files are not right"


@case(
    "F8",
    "429 with Retry-After",
    "HTTP 429; again in 1 s",
    otherwise="HTTP 429, 2 times in a row",
)
def too_many_requests(site: PullSandbox) -> None:
    first: list[float] = []

    def busy(answer: Answer, name: str, start: int, end: int) -> bool:
        first.append(time.monotonic())
        return time.monotonic() < first[0] + 0.9 and status(429, Retry_After="1")(answer, name, start, end)

    site.hub.fault = always(busy)
    found = site.pull()
    assert found.code == 0, found
    assert "HTTP 429; again in 1 s" in str(found.said)


@case(
    "F9",
    "500 on each connection",
    "nothing, or: HTTP 500, 7 times in a row",
    otherwise="model.safetensors: HTTP 500'",
)
def server_error(site: PullSandbox) -> None:
    site.hub.fault = once_each(status(500))
    found = site.pull()
    assert found.code == 0, found
    assert site.is_right(), "the files are not right"


@case(
    "F10",
    "the server crawls, a byte now and then",
    "stalled: 10 bytes/s for 20 s, 7 times in a row",
    otherwise="IncompleteRead",
)
def crawling(site: PullSandbox) -> None:
    site.hub.fault = always(drip)
    found = site.pull()
    assert found.names(5, "stalled", "the same command again"), found


@case(
    "F11",
    "a gated repository: 401 or 403",
    "accept the licence at …, then: hf auth login",
    otherwise="deckard-deploy lock --check",
)
def gated(site: PullSandbox) -> None:
    site.hub.api_status = [(403, {"X-Error-Code": "GatedRepo"})]
    found = site.pull()
    assert found.names(5, "is gated", "accept the licence", "hf auth login"), found
    site.hub.fault = always(status(403))
    found = site.pull()
    assert found.names(5, "accept the licence", "hf auth login"), found


@case(
    "F12",
    "the revision is gone (404), or the repository has another name (307)",
    "owner/model has no revision …; look at …/commits/main",
    otherwise="only for those who may see it",
)
def moved(site: PullSandbox) -> None:
    site.hub.api_status = [(404, {"X-Error-Code": "RevisionNotFound"})]
    found = site.pull()
    assert found.names(5, "has no revision", "/commits/main"), found
    site.hub.moved_to = "owner/new-name"
    assert site.pull().code == 0
    assert site.is_right(), "the files are not right"
