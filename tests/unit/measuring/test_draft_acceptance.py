"""Keep, draft fewer, or off: the rule, at its edges."""

import pytest

from deckard_deploy.measuring.draft_acceptance import Advice, advise
from deckard_deploy.measuring.metrics import SpeculativeDecoding


def made_drafts(*shares: float, drafts: int = 100) -> SpeculativeDecoding:
    accepted = tuple(share * drafts for share in shares)
    return SpeculativeDecoding(
        drafts=drafts,
        draft_tokens=drafts * len(shares),
        accepted_tokens=sum(accepted),
        accepted_per_position=accepted,
    )


@pytest.mark.parametrize(
    ("measured", "advice", "tokens"),
    [
        (made_drafts(0.92, 0.78, 0.67, 0.57), Advice.KEEP, 4),  # github club-3090
        (made_drafts(0.92, 0.78, 0.67, 0.49), Advice.LOWER, 3),
        (made_drafts(1.0, 0.0, 0.0, 0.0), Advice.LOWER, 1),
        (made_drafts(0.3, 0.1, 0.0, 0.0), Advice.LOWER, 1),  # above the floor: one token still pays
        (made_drafts(0.18, 0.02, 0.0, 0.0), Advice.LOWER, 1),
        (made_drafts(0.18, 0.01, 0.0, 0.0), Advice.OFF, 0),  # 4.75 %
        (made_drafts(0.0, 0.0, 0.0, 0.0), Advice.OFF, 0),
        (made_drafts(1.0, 1.0, 1.0, 1.0, drafts=7), Advice.UNKNOWN, 4),
        (made_drafts(drafts=0), Advice.UNKNOWN, 4),
    ],
)
def test_advice_follows_measured_acceptance(
    measured: SpeculativeDecoding, advice: Advice, tokens: int
) -> None:
    verdict = advise(measured, 4)
    assert (verdict.advice, verdict.tokens) == (advice, tokens)


def test_single_drafted_token_is_kept() -> None:
    verdict = advise(made_drafts(0.3), 1)
    assert (verdict.advice, verdict.tokens) == (Advice.KEEP, 1)


def test_verdict_detail_names_the_figures() -> None:
    assert (
        advise(made_drafts(0.75, 0.25), 2).detail
        == "50% of 200 drafted tokens accepted; by position 75%, 25%"
    )
