"""The log of a container, as docker's API streams it: each line behind a time stamp."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Self

import pytest
from docker import APIClient

from deckard_deploy.running.docker.client import DockerClient
from deckard_deploy.running.docker.log import DockerLog, _seconds
from tests.support.waiting import eventually

BAR = b"Loading shards:   0%\rLoading shards:  50%\rLoading shards: 100%\n"


class FakeStream:
    """A stream of the SDK. The last one of a container stays open until it is closed."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        pass


class FakeApi(APIClient):
    """The part of docker's API that a log needs. `since` holds the argument of each question."""

    def __init__(self, streams: list[list[bytes]]) -> None:
        self._streams = streams
        self.since: list[object] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def logs(self, *_: Any, **options: Any) -> Any:
        self.since.append(options["since"])
        return FakeStream(self._streams.pop(0) if self._streams else [])


class FakeClient(DockerClient):
    def __init__(self, *streams: list[bytes]) -> None:
        super().__init__(environment={}, say=print)
        self.fake = FakeApi(list(streams))

    def connect(self) -> FakeApi:
        return self.fake


def at(second: int, text: bytes) -> bytes:
    return b"2026-11-30T10:00:%02d.000000000Z " % second + text


def read(client: FakeClient, attaches: int) -> list[str]:
    """The lines of so many streams."""
    with contextlib.closing(DockerLog(client, "c0ffee")) as log:
        eventually(lambda: len(client.fake.since) > attaches)
        return log.poll()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain words\n", "plain words"),
        (b"\x1b[31mred\x1b[0m\r\n", "red"),
        (BAR, "Loading shards: 100%"),
        (b"\r" + BAR, "Loading shards: 100%"),
        (b"\r0% done\r50% done\n", "50% done"),
        (b"\n", ""),
    ],
)
def test_line_loses_its_stamp_alone(raw: bytes, shown: str) -> None:
    client = FakeClient([at(1, b"first\n") + at(2, raw) + at(3, b"last\n")])
    assert read(client, 1) == ["first", shown, "last"]


def test_lines_come_after_attach_behind_a_bar() -> None:
    client = FakeClient([at(1, b"first\n"), at(2, BAR)], [at(2, BAR), at(3, b"next\n")])
    assert read(client, 2) == ["first", "Loading shards: 100%", "next"]
    assert client.fake.since[:2] == [None, 1796032802]


def test_line_without_stamp_is_shown_whole() -> None:
    """The daemon writes such a line of its own into the stream when it fails to read its log."""
    client = FakeClient(
        [at(1, b"first\n"), b"Error grabbing logs: EOF\n"], [at(1, b"first\n"), at(2, b"on\n")]
    )
    assert read(client, 2) == ["first", "Error grabbing logs: EOF", "on"]
    assert client.fake.since[1] == 1796032801


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:00:00.000000000Z", 0),
        ("2026-11-30T12:00:00.999999999Z", 1796040000),
        ("", None),
    ],
)
def test_stamp_is_whole_seconds_in_utc(stamp: str, seconds: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "XST+5")
    time.tzset()
    try:
        assert _seconds(stamp) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()
