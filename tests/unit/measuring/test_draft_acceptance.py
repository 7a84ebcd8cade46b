"""Keep, draft fewer, or off: the rule, at its edges."""

import pytest

from deckard_deploy.measuring.draft_acceptance import Advice, judge
from deckard_deploy.measuring.metrics import SpeculativeDecoding


def drafted(*shares: float, drafts: int = 100) -> SpeculativeDecoding:
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
        (drafted(0.92, 0.78, 0.67, 0.57), Advice.KEEP, 4),  # github club-3090
        (drafted(0.92, 0.78, 0.67, 0.49), Advice.LOWER, 3),
        (drafted(1.0, 0.0, 0.0, 0.0), Advice.LOWER, 1),
        (drafted(0.3, 0.1, 0.0, 0.0), Advice.LOWER, 1),  # above the floor: one token still pays
        (drafted(0.18, 0.02, 0.0, 0.0), Advice.LOWER, 1),
        (drafted(0.18, 0.01, 0.0, 0.0), Advice.OFF, 0),  # 4.75 %
        (drafted(0.0, 0.0, 0.0, 0.0), Advice.OFF, 0),
        (drafted(1.0, 1.0, 1.0, 1.0, drafts=7), Advice.UNKNOWN, 4),
        (drafted(drafts=0), Advice.UNKNOWN, 4),
    ],
)
def test_the_advice(measured: SpeculativeDecoding, advice: Advice, tokens: int) -> None:
    verdict = judge(measured, 4)
    assert (verdict.advice, verdict.tokens) == (advice, tokens)


def test_one_token_cannot_become_fewer() -> None:
    verdict = judge(drafted(0.3), 1)
    assert (verdict.advice, verdict.tokens) == (Advice.KEEP, 1)


def test_the_figures_are_said() -> None:
    assert judge(drafted(0.75, 0.25), 2).detail == "50% of 200 drafted tokens accepted; by position 75%, 25%"
