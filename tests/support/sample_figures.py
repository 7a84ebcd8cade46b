"""Figures from a page of /metrics that vLLM 0.19.1 wrote."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from deckard_deploy.measuring.metrics import Page, parse
from deckard_deploy.measuring.window import Figures, figures

PAGE = (Path(__file__).parents[1] / "unit" / "measuring" / "pages" / "vllm-0.19.1.txt").read_text(
    encoding="utf-8"
)
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def sample_figures() -> Figures:
    """Return the figures of the page since its server's start, with a long draft."""
    found = figures(parse(PAGE, at_s=10), Page(0.0, {}, {}))
    return dataclasses.replace(
        found, acceptance_by_position=(0.5,) * 15, kv_use=0.95, started_at=NOW.timestamp() - 90
    )
