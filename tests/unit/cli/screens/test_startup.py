"""The progress of a start as text and as plain lines."""

import pytest

from deckard_deploy.cli.screens.startup import PlainDisplay, describe, startup_display
from deckard_deploy.startup.phases import Phase, Progress


def progress(percent: float | None = None, step: str = "") -> Progress:
    return Progress(phase=Phase.WEIGHTS, since=0.0, percent=percent, step=step)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (progress(), "weights"),
        (progress(52.4), "weights 52 %"),
        (progress(52.4, "safetensors shards"), "weights 52 % (safetensors shards)"),
        (progress(step="safetensors shards"), "weights (safetensors shards)"),
    ],
)
def test_progress_as_text(shown: Progress, text: str) -> None:
    assert describe(shown) == text


def test_plain_lines_are_one_a_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay(90)
    for percent in (None, 1, 24, 26, 49, 100):
        display.show(progress(percent))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("  ")[2] for line in lines] == ["weights", "weights 26 %", "weights 100 %"]
    assert all(line.startswith("0:00 / ~1:30  ") for line in lines)


def test_pipe_gets_plain_display() -> None:
    with startup_display(None) as display:
        assert type(display) is PlainDisplay
