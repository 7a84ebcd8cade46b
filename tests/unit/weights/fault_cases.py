"""The faults between the hub and a pull, F1 to F12, each with its guard.

A case has a sentence, a scenario that asserts how a pull survives, and the guard: its module, its text, and
the text that replaces it in a copy of the package. With that copy the same scenario must fail as `otherwise`
says.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.unit.weights.fault_site import (
    BIG,
    Ended,
    Site,
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
from tests.unit.weights.hub_server import Answer, flipped

Scenario = Callable[[Site], None]


class Case(NamedTuple):
    """`said` is the text for the user, `otherwise` a part of the failed assertion without the guard."""

    number: str
    fault: str
    said: str
    module: str
    guard: str
    instead: str
    otherwise: str
    scenario: Scenario


CASES: list[Case] = []


def case(
    number: str, fault: str, said: str, *, guard: tuple[str, str, str], otherwise: str
) -> Callable[[Scenario], Scenario]:
    def add(scenario: Scenario) -> Scenario:
        CASES.append(Case(number, fault, said, *guard, otherwise, scenario))
        return scenario

    return add


@case(
    "F1",
    "the connection is cut in the middle of every segment",
    "nothing: it goes on where it was",
    guard=("weights/transfer.py", "if failures > self._pace.retries:", "if failures:"),
    otherwise="1 times in a row",
)
def cut(site: Site) -> None:
    site.hub.fault = once_each(half)
    found = site.pull()
    assert found.code == 0, found
    assert site.is_right(), "the files are not right"
    assert site.hub.sent < len(site.hub.files[BIG]) + 1000, "what had come was fetched again"


@case(
    "F2",
    "kill -9 in the middle",
    "nothing; the same command goes on where it was",
    guard=("weights/partial.py", "if not self._continue():", "if True:"),
    otherwise="was fetched again",
)
def killed(site: Site) -> None:
    interrupted(site, signal.SIGKILL, site.begin)
    site.hub.ranges.clear()
    assert site.pull().code == 0
    assert site.is_right(), "the files are not right"
    assert site.hub.served(BIG) < len(site.hub.files[BIG]) - 500_000, "what had come was fetched again"


def interrupted(site: Site, number: signal.Signals, begin: Callable[[], "subprocess.Popen[str]"]) -> Ended:
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
    until(lambda: journalled(site) > 500_000)
    process.send_signal(number)
    found = ended(process)
    release.set()
    site.hub.fault = lambda *_: False
    return found


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def journalled(site: Site) -> int:
    """Return the bytes on disk of unfinished files."""
    return sum(path.stat().st_blocks * 512 for path in site.root.rglob("parts/*.part"))


@case(
    "F3",
    "SIGTERM, or ^C, in the middle",
    "interrupted, 130: what came is kept: the same command goes on there",
    guard=("cli/main.py", "signal.signal(number, signal.default_int_handler)", "pass"),
    otherwise="code=-15",
)
def terminated(site: Site) -> None:
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
    guard=("weights/pull.py", "if found == file.digest:", "if True:"),
    otherwise="the files are not right",
)
def wrong_bit(site: Site) -> None:
    site.hub.fault = times(1, flipped)
    found = site.pull()
    assert site.is_right(), "the files are not right"
    assert "once more" in str(found.said)


@case(
    "F5",
    "a bit rots later, and the file keeps its size and times",
    "its content is not what was published; fetched again",
    guard=("weights/folder.py", "ctime_ns=found.st_ctime_ns,", "ctime_ns=0,"),
    otherwise="the files are not right",
)
def rotten(site: Site) -> None:
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
    guard=(
        "weights/transfer.py",
        "if response.status_code == 200 and (start, end) != (0, self._partial.size):",
        "if False:",
    ),
    otherwise="the hub sent other bytes",
)
def no_ranges(site: Site) -> None:
    site.hub.fault = always(whole_file)
    found = site.pull()
    assert found.code == 0, found
    assert site.is_right(), "the files are not right"


@case(
    "F7",
    "the server sends another range than the one asked for",
    "asked for bytes …, and Content-Range is …, 2 times in a row",
    guard=("weights/responses.py", 'raise RetryableError(f"asked for bytes', 'str(f"asked for bytes'),
    otherwise="the hub sent other bytes",
)
def wrong_range(site: Site) -> None:
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
    guard=("weights/transfer.py", "if error.retry_after is not None:", "if False:"),
    otherwise="HTTP 429, 2 times in a row",
)
def too_many_requests(site: Site) -> None:
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
    guard=("weights/responses.py", " or status >= 500:", ":"),
    otherwise="model.safetensors: HTTP 500'",
)
def server_error(site: Site) -> None:
    site.hub.fault = once_each(status(500))
    found = site.pull()
    assert found.code == 0, found
    assert site.is_right(), "the files are not right"


@case(
    "F10",
    "the server crawls, a byte now and then",
    "stalled: 10 bytes/s for 20 s, 7 times in a row",
    guard=("weights/responses.py", "if came < slowest_bytes_s * passed:", "if False:"),
    otherwise="IncompleteRead",
)
def crawling(site: Site) -> None:
    site.hub.fault = always(drip)
    found = site.pull()
    assert found.names(5, "stalled", "the same command again"), found


@case(
    "F11",
    "a gated repository: 401 or 403",
    "accept the licence at …, then: hf auth login",
    guard=("weights/responses.py", "if status in (401, 403):", "if False:"),
    otherwise="deckard-deploy lock --check",
)
def gated(site: Site) -> None:
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
    guard=("weights/hub.py", "if isinstance(error, RevisionNotFoundError):", "if False:"),
    otherwise="only for those who may see it",
)
def moved(site: Site) -> None:
    site.hub.api_status = [(404, {"X-Error-Code": "RevisionNotFound"})]
    found = site.pull()
    assert found.names(5, "has no revision", "/commits/main"), found
    site.hub.moved_to = "owner/new-name"
    assert site.pull().code == 0
    assert site.is_right(), "the files are not right"
