"""Pulls from a real server that misbehaves. The control is huggingface_hub's own client."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from deckard_deploy.errors import (
    DeployError,
    IntegrityError,
    NetworkError,
)
from tests.support.hub_server import Answer, Hub, flipped, running
from tests.support.pull_folder import BIG, IMPATIENT, PACE, PullFolder
from tests.support.pull_sandbox import once_each


def test_pull_fetches_every_needed_file_once(pull_folder: PullFolder):
    assert pull_folder.pull() == sum(
        len(data) for name, data in pull_folder.hub.files.items() if name != "tool.py"
    )
    pull_folder.assert_right()
    assert pull_folder.hub.served(BIG) == len(pull_folder.hub.files[BIG])
    asked = len(pull_folder.hub.ranges)
    assert pull_folder.pull() == 0
    assert len(pull_folder.hub.ranges) == asked


def test_token_is_not_sent_after_a_redirect(pull_folder: PullFolder):
    other = Hub(pull_folder.hub.files)
    with running(other):

        def redirect(answer: Answer, name: str, _start: int, _end: int) -> bool:
            # another host name, like that of a CDN
            answer.reply(
                302, b"", {"Location": f"{other.url.replace('127.0.0.1', 'localhost')}/x/resolve/y/{name}"}
            )
            return True

        pull_folder.hub.fault = redirect
        pull_folder.pull()
    pull_folder.assert_right()
    assert any(headers.get("Authorization") == "Bearer hf_secret" for headers in pull_folder.hub.requests)
    assert not any("Authorization" in headers for headers in other.requests)


def first_requests(
    fault: Callable[[Answer, str, int, int], bool], times: int = 1
) -> Callable[[Answer, str, int, int], bool]:
    left = [times]

    def limited(answer: Answer, name: str, start: int, end: int) -> bool:
        if name != BIG or not left[0]:
            return False
        left[0] -= 1
        return fault(answer, name, start, end)

    return limited


def cut_short(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end)
    answer.wfile.write(data[start : (start + end) // 2])
    answer.cut()
    return True


def stall(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end)
    answer.wfile.write(data[start : start + 100_000])
    answer.wfile.flush()
    answer.wait(2)
    answer.cut()
    return True


def drip(answer: Answer, name: str, start: int, end: int) -> bool:
    """Send a byte now and then, which no socket timeout detects."""
    data = answer.hub.files[name]
    answer.head(data, start, end)
    for byte in data[start : start + 20]:
        answer.wfile.write(bytes([byte]))
        answer.wait(0.1)
    answer.cut()
    return True


def status(code: int, **headers: str) -> Callable[[Answer, str, int, int], bool]:
    def fault(answer: Answer, _name: str, _start: int, _end: int) -> bool:
        answer.reply(code, b"oh no", {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def wrong_range(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Range=f"bytes {start + 7}-{end + 6}/{len(data)}")
    answer.wfile.write(data[start:end])
    return True


def long_range(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Range=f"bytes {'9' * 5000}-{end - 1}/{len(data)}")
    answer.wfile.write(data[start:end])
    return True


def wrong_total(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Range=f"bytes {start}-{end - 1}/{len(data) + 1}")
    answer.wfile.write(data[start:end])
    return True


def whole_file(answer: Answer, name: str, _start: int, _end: int) -> bool:
    data = answer.hub.files[name]
    answer.reply(200, data, {"ETag": '"other"'})
    return True


def compressed(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Encoding="gzip")
    answer.wfile.write(data[start:end])
    return True


PASSING = {
    "connection cut": once_each(cut_short),
    "stall": first_requests(stall),
    "drip": first_requests(drip),
    "503": first_requests(status(503), 3),
    "500 for each segment": once_each(status(500)),
    "429 with seconds": first_requests(status(429, Retry_After="0"), 3),
    "429 with a date": first_requests(status(429, Retry_After="Mon, 23 Nov 2020 10:00:00 GMT"), 3),
    "429 with a date past every calendar": first_requests(
        status(429, Retry_After="Mon, 01 Jan 99999999999 00:00:00 GMT"), 3
    ),
    "429 with a digit that is no number": first_requests(status(429, Retry_After="\u00b2"), 3),
    "wrong Content-Range": first_requests(wrong_range, 2),
    "Content-Range of 5,000 digits": first_requests(long_range, 2),
    "wrong total": first_requests(wrong_total, 2),
    "compressed": first_requests(compressed, 2),
    "flipped bit": first_requests(flipped),
    "whole file for a range, once": first_requests(whole_file),
    "whole file for every range": first_requests(whole_file, 10**6),
}


@pytest.mark.parametrize("name", PASSING)
def test_pull_survives_a_passing_fault(pull_folder: PullFolder, name):
    pull_folder.hub.fault = PASSING[name]
    pull_folder.pull(replace(IMPATIENT, retries=50) if name in ("stall", "drip") else PACE)
    pull_folder.assert_right()


LASTING: dict[str, tuple[Callable[[Answer, str, int, int], bool], type[DeployError], str]] = {
    "503": (status(503), NetworkError, "HTTP 503, 4 times in a row"),
    "401": (status(401), NetworkError, "the hub refuses"),
    "403": (status(403), NetworkError, "the hub refuses"),
    "404": (status(404), NetworkError, "HTTP 404"),
    "login page": (status(200, Content_Type="text/html; charset=utf-8"), NetworkError, "HTML page"),
    "too short": (status(200), NetworkError, "bytes were expected"),
    "redirect to nowhere": (
        status(302, Location="gopher://x/"),
        NetworkError,
        "returned an invalid redirect",
    ),
    "redirect to half an address": (
        status(302, Location="http://[::1/x"),
        NetworkError,
        "returned an invalid redirect",
    ),
    "redirect to no text": (
        status(302, Location="http://h/\xff"),
        NetworkError,
        "returned an invalid redirect",
    ),
    "flipped bit": (flipped, IntegrityError, "twice"),
    "stall": (drip, NetworkError, "stalled"),
    "wrong Content-Range": (wrong_range, NetworkError, "Content-Range is"),
}


@pytest.mark.parametrize(("fault", "error", "words"), LASTING.values(), ids=LASTING)
def test_lasting_fault_is_one_line_and_pull_resumes(pull_folder: PullFolder, fault, error, words):
    pull_folder.hub.fault = lambda answer, name, start, end: name == BIG and fault(answer, name, start, end)
    with pytest.raises(error, match=words) as caught:
        pull_folder.pull(IMPATIENT if fault is drip else PACE)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not (pull_folder.folder / BIG).exists()
    pull_folder.hub.fault = lambda *_: False
    pull_folder.pull()
    pull_folder.assert_right()
