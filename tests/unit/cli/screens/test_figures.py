"""Figures as text, and samples as lines."""

import pytest

from deckard_deploy.cli.screens.figures import rate, sample_json, sample_line, seconds
from deckard_deploy.operations.top import Sample
from tests.support.json_output import checked
from tests.support.sample_figures import NOW, sample_figures


def test_samples_as_json_and_lines() -> None:
    found = checked("top", sample_json(Sample(NOW, sample_figures())))
    assert found["at"] == "2026-11-25T12:00:00+00:00"
    assert set(found["first_token"]) == {"p50_s", "p95_s", "p99_s"}
    assert checked("top", sample_json(Sample(NOW, None, "refused"))) == {
        "at": found["at"],
        "problem": "refused",
    }
    assert "generation" in sample_line(Sample(NOW, sample_figures()))
    assert sample_line(Sample(NOW, None, "refused")) == "12:00:00  no answer: refused"


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0123, "12 ms"), (1.25, "1.2 s"), (64, "64.0 s")])
def test_seconds_have_units(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_rate_without_value_is_a_dash() -> None:
    assert (rate(None), rate(0.0)) == ("-", "0.0 tok/s")
