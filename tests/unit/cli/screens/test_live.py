"""The screen of `top` fits its terminal."""

import dataclasses
import io

import pytest
from rich.console import Console

from deckard_deploy.cli.screens.live import curve, screen
from deckard_deploy.operations.top import Sample
from deckard_deploy.planning.planner import build_plan
from tests.support.sample_choices import choice
from tests.support.sample_figures import NOW, sample_figures


def drawn(look: Sample, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(screen(build_plan(choice("spark")), look, [0.0, 12.5, 25.0]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (200, 60), (20, 20)])
@pytest.mark.parametrize(
    "look", [Sample(NOW, sample_figures()), Sample(NOW, None, "http://127.0.0.1:8000/metrics: gone")]
)
def test_screen_fits_terminal(look: Sample, width: int, height: int) -> None:
    lines = drawn(look, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_screen_shows_all_figures() -> None:
    text = "\n".join(drawn(Sample(NOW, sample_figures()), 80, 24))
    for words in (
        "up 1:30",
        "generation",
        "tok/s",
        "running",
        "waiting",
        "95.0%",
        "first token",
        "p99",
        "50% accepted",
    ):
        assert words in text


def test_extreme_figures_are_drawn() -> None:
    odd = dataclasses.replace(sample_figures(), kv_use=1e308, started_at=1e300)
    text = "\n".join(drawn(Sample(NOW, odd), 80, 24))
    assert "up 0:00" in text
    assert "█" * 20 in text


def test_screen_names_missing_server() -> None:
    assert "no answer at 12:00:00: refused" in "\n".join(drawn(Sample(NOW, None, "refused"), 80, 24))


def test_curve_ends_at_the_top() -> None:
    assert (curve([0, 50, 100]), curve([0, 0]), curve([])) == ("▁▅█", "", "")
