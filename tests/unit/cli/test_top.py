"""`top`: a screen on a capable terminal, lines elsewhere."""

import io
import sys

import pytest

from deckard_deploy.cli.top import is_drawable


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
