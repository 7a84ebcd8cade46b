"""The draft acceptance above which a drafter pays."""

import json

import pytest

from deckard_deploy.planning.break_even import BROKEN_ACCEPTANCE, break_even
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.planning.roofline import drafting_of
from tests.support.sample_choices import choice


def test_break_even_without_drafter_is_none() -> None:
    assert break_even(build_plan(choice("spark"))) is None


def test_break_even_is_cost_per_drafted_token() -> None:
    chosen = choice("spark", "drafter=deckard-e4b")
    drafting, threshold = drafting_of(chosen), break_even(build_plan(chosen))
    assert drafting is not None
    assert threshold is not None
    assert 0 < threshold < 1
    # With this share of k drafted tokens accepted, decoding is exactly as fast as without a drafter.
    assert (1 + threshold * drafting.tokens) / (1 + drafting.cost * drafting.tokens) == pytest.approx(1)


@pytest.mark.parametrize(
    "drafter", ["gemma-4-31b-assistant", "gemma-4-31b-dflash", "gemma-4-31b-eagle3", "ngram"]
)
def test_break_even_is_at_least_broken_acceptance(drafter: str) -> None:
    chosen = choice("spark", "engine=vllm-0.32.0", f"drafter={drafter}")
    drafting, threshold = drafting_of(chosen), break_even(build_plan(chosen))
    assert drafting is not None
    assert threshold == max(BROKEN_ACCEPTANCE, drafting.cost)


def test_unknown_drafter_gets_broken_acceptance() -> None:
    plan = build_plan(choice("spark"))
    config = json.dumps({"method": "ngram", "num_speculative_tokens": 3})
    plan = plan.model_copy(update={"arguments": (*plan.arguments, "--speculative-config", config)})
    assert break_even(plan) == BROKEN_ACCEPTANCE
