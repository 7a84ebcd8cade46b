"""Time stamps of docker's log; tests/e2e/test_docker_runtime.py follows real logs."""

import time

import pytest

from deckard_deploy.running.docker.log import _seconds


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
