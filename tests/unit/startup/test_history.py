"""Earlier starts, in real files."""

import json
import os
from pathlib import Path

import pytest

from deckard_deploy.startup import history
from deckard_deploy.startup.history import Start, estimate, record, starts_like
from deckard_deploy.startup.phases import Phase


def start(total_s: float = 300, *, model: str = "deckard-31b", **seconds: float) -> Start:
    durations = {Phase[name.upper()]: value for name, value in seconds.items()}
    return Start(profile="spark", model=model, engine="e", cold=False, total_s=total_s, durations=durations)


def read(path: Path, model: str = "deckard-31b") -> tuple[Start, ...]:
    return starts_like(path, profile="spark", model=model, engine="e")


def test_record_is_read_back(tmp_path: Path):
    path = tmp_path / "startups.jsonl"
    one, other = start(300, weights=70, compile=60), start(250, model="tiny", server=1)
    record(path, one)
    record(path, other)
    assert read(path) == (one,)
    assert read(path, "tiny") == (other,)
    assert path.stat().st_mode & 0o777 == 0o600


def test_missing_file_gives_no_estimate(tmp_path: Path):
    assert read(tmp_path / "none.jsonl") == ()
    assert estimate((), phase=Phase.WEIGHTS, in_phase_s=3) is None


@pytest.mark.parametrize(
    "junk",
    [
        b"{",
        b"null",
        b"\xff\x00",
        b"[]",
        json.dumps({"profile": "spark"}).encode(),
        start().model_dump_json().replace("300", "-1").encode(),
        start().model_dump_json().replace("300", "1e999").encode(),
        start(weights=1).model_dump_json().replace('"weights"', '"wishes"').encode(),
    ],
)
def test_invalid_lines_are_skipped(tmp_path: Path, junk: bytes):
    path = tmp_path / "startups.jsonl"
    record(path, start(1))
    with path.open("ab") as file:
        file.write(junk + b"\n")
    record(path, start(2))
    assert [each.total_s for each in read(path)] == [1, 2]


def test_truncated_last_line_is_skipped(tmp_path: Path):
    path = tmp_path / "startups.jsonl"
    record(path, start(1))
    record(path, start(2))
    os.truncate(path, path.stat().st_size - 20)
    assert [each.total_s for each in read(path)] == [1]
    record(path, start(3))
    assert [each.total_s for each in read(path)] == [1, 3]


def test_file_is_bounded_and_keeps_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "MAX_BYTES", 2000)
    path = tmp_path / "startups.jsonl"
    for number in range(100):
        record(path, start(number))
        assert path.stat().st_size <= 2000
    assert [each.total_s for each in read(path)] == [95, 96, 97, 98, 99]
    assert list(tmp_path.iterdir()) == [path]


def test_estimate_sums_medians_of_remaining_phases():
    starts = (
        start(100, weights=60, compile=30, server=10),
        start(200, weights=160, compile=20, server=20),
        start(130, weights=70, compile=40, server=20),
    )
    eta = estimate(starts, phase=Phase.WEIGHTS, in_phase_s=50)
    assert eta is not None
    assert (eta.total_s, eta.remaining_s, eta.starts) == (130, 20 + 30 + 20, 3)


def test_slow_phase_does_not_shorten_the_others():
    eta = estimate((start(100, weights=60, server=10),), phase=Phase.WEIGHTS, in_phase_s=500)
    assert eta is not None
    assert eta.remaining_s == 10


def test_cold_start_is_not_the_next_start():
    cold = start(272).model_copy(update={"cold": True})
    (only_cold, with_warm) = (
        estimate(starts, phase=Phase.CONTAINER, in_phase_s=0) for starts in ((cold,), (cold, start(92)))
    )
    assert only_cold
    assert only_cold.total_s == 272
    assert with_warm
    assert with_warm.total_s == 92
