"""`top`: what is drawn fits its terminal, and a server may go and come back."""

import dataclasses
import io
import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from deckard_deploy.cli.screens.figures import rate, sample_json, sample_line, seconds
from deckard_deploy.cli.screens.live import curve, screen
from deckard_deploy.cli.top import is_drawable
from deckard_deploy.measuring.metrics import Page, parse
from deckard_deploy.measuring.window import Figures, figures
from deckard_deploy.operations.top import MetricsSource, Sample, samples
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.system.http import ANONYMOUS
from tests.support.sample_choices import choice

PAGE = (Path(__file__).parents[1] / "measuring" / "pages" / "vllm-0.19.1.txt").read_text(encoding="utf-8")
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def shown() -> Figures:
    """The real page since its server's start, with a long draft."""
    found = figures(parse(PAGE, at_s=10), Page(0.0, {}, {}))
    return dataclasses.replace(
        found, acceptance_by_position=(0.5,) * 15, kv_use=0.95, started_at=NOW.timestamp() - 90
    )


def drawn(look: Sample, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(screen(build_plan(choice("spark")), look, [0.0, 12.5, 25.0]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (200, 60), (20, 20)])
@pytest.mark.parametrize(
    "look", [Sample(NOW, shown()), Sample(NOW, None, "http://127.0.0.1:8000/metrics: gone")]
)
def test_screen_fits_terminal(look: Sample, width: int, height: int) -> None:
    lines = drawn(look, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_screen_shows_all_figures() -> None:
    text = "\n".join(drawn(Sample(NOW, shown()), 80, 24))
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
    odd = dataclasses.replace(shown(), kv_use=1e308, started_at=1e300)
    text = "\n".join(drawn(Sample(NOW, odd), 80, 24))
    assert "up 0:00" in text
    assert "█" * 20 in text


def test_screen_names_missing_server() -> None:
    assert "no answer at 12:00:00: refused" in "\n".join(drawn(Sample(NOW, None, "refused"), 80, 24))


def test_samples_as_json_and_lines() -> None:
    found = json.loads(sample_json(Sample(NOW, shown())))
    assert found["at"] == "2026-11-25T12:00:00+00:00"
    assert set(found["first_token"]) == {"p50_s", "p95_s", "p99_s"}
    assert json.loads(sample_json(Sample(NOW, None, "refused"))) == {"at": found["at"], "problem": "refused"}
    assert "generation" in sample_line(Sample(NOW, shown()))
    assert sample_line(Sample(NOW, None, "refused")) == "12:00:00  no answer: refused"


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0123, "12 ms"), (1.25, "1.2 s"), (64, "64.0 s")])
def test_seconds_have_units(value: float | None, text: str) -> None:
    assert seconds(value) == text


class Terminal(io.TextIOWrapper):
    """A terminal, as far as Python asks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("term", "encoding", "shows"),
    [
        ("xterm-256color", "utf-8", "a screen"),
        ("dumb", "utf-8", "lines"),
        (None, "utf-8", "lines"),
        ("xterm", "ascii", "lines"),
    ],
)
def test_screen_needs_capable_terminal(
    monkeypatch: pytest.MonkeyPatch, term: str | None, encoding: str, shows: str
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO(), encoding=encoding))
    monkeypatch.setenv("TERM", term) if term else monkeypatch.delenv("TERM", raising=False)
    assert is_drawable() == (shows == "a screen")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not is_drawable()


def test_rate_without_value_is_a_dash() -> None:
    assert (rate(None), rate(0.0)) == ("-", "0.0 tok/s")


def test_curve_ends_at_the_top() -> None:
    assert (curve([0, 50, 100]), curve([0, 0]), curve([])) == ("▁▅█", "", "")


class Served(BaseHTTPRequestHandler):
    """The real page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


def served(port: int) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), Served)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def stopped(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = served(0)
    yield made
    made.server_close()


def test_samples_survive_server_restart(server: ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    source = MetricsSource(build_plan(choice("cpu")), f"http://127.0.0.1:{port}/metrics", ANONYMOUS)
    looks = samples(source, 0)
    assert next(looks).figures is not None
    stopped(server)
    gone = next(looks)
    assert (gone.figures, f"http://127.0.0.1:{port}/metrics: ConnectionError") == (None, gone.problem)
    again = served(port)
    found = next(looks).figures
    stopped(again)
    assert found is not None
    assert found.restarts == 0  # the same page: the engine behind it did not restart
