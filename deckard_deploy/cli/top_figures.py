"""How `top` writes its figures: `-` where there is nothing to say, units always."""

from datetime import datetime
from typing import NamedTuple

from deckard_deploy.measuring.window import Figures

NOTHING = "-"


def line(figures: Figures) -> str:
    """All of it in one line, for a log or a pipe."""
    parts = [
        f"generation {rate(figures.generation_tok_s)}",
        f"prompt {rate(figures.prompt_tok_s)}",
        f"running {count(figures.running)}",
        f"waiting {count(figures.waiting)}",
        f"first token {seconds(figures.first_token.p50_s)} p95 {seconds(figures.first_token.p95_s)}",
        f"KV {percent(figures.kv_use)}",
        f"prefix hits {percent(figures.prefix_hits)}",
        f"preemptions {count(figures.preemptions)}",
        f"acceptance {percent(figures.acceptance_rate)}",
        f"restarts {figures.restarts}",
    ]
    return "  ".join(parts)


def rate(value: float | None) -> str:
    """Tokens per second."""
    return NOTHING if value is None else f"{value:,.1f} tok/s"


def count(value: float | None) -> str:
    """A whole number."""
    return NOTHING if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share of 0 to 1."""
    return NOTHING if share is None else f"{share:.0%}"


def seconds(value: float | None) -> str:
    """A time, in milliseconds below one second."""
    if value is None:
        return NOTHING
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


class Look(NamedTuple):
    """One look at the server: its figures, or why there are none."""

    at: datetime
    figures: "Figures | None"
    problem: str = ""
