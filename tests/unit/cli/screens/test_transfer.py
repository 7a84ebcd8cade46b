"""The progress of a transfer as plain lines; test_terminals.py has the live one."""

import time

import pytest

from deckard_deploy.cli.screens.transfer import LINE_INTERVAL_S, PlainDisplay, transfer_line

TOTAL = 4 * 10**9


@pytest.mark.parametrize(
    ("rate", "rest"), [(None, ""), (0.0, ""), (20e6, ", 20 MB/s, 1:40 left"), (1e9, ", 1000 MB/s, 0:02 left")]
)
def test_line_has_figures_that_are_known(rate: float | None, rest: str) -> None:
    assert transfer_line("m", 2 * 10**9, TOTAL, rate) == f"weights  m: 2.00 of 4.00 GB{rest}"


def test_plain_line_comes_every_10_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    display = PlainDisplay("m")
    for _ in range(5):
        display.show(int((now - 1000) * 10e6), TOTAL)
        now += LINE_INTERVAL_S / 2
    assert capsys.readouterr().err.splitlines() == [
        "weights  m: 0.10 of 4.00 GB, 10 MB/s, 6:30 left",
        "weights  m: 0.20 of 4.00 GB, 10 MB/s, 6:20 left",
    ]


def test_first_late_line_has_no_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    display = PlainDisplay("m")
    now += LINE_INTERVAL_S
    display.show(TOTAL // 2, TOTAL)
    assert capsys.readouterr().err == "weights  m: 2.00 of 4.00 GB\n"
