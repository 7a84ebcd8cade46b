"""Each token of each chain has one follower, as the three votes of lm_head require."""

import pytest

from deckard_deploy.rehearsal.layers import _NO_MODE, VOTE
from deckard_deploy.rehearsal.script import CHAINS, MARKERS, MODES, TURN_END, scripted_tokens, transitions


@pytest.mark.parametrize("mode", MODES)
def test_each_token_of_a_mode_has_one_follower(mode):
    spoken = {follower for other, _, follower in transitions() if other == mode}
    for token in {token for other, token, _ in transitions() if other == mode}:
        rivals = {follower for _, before, follower in transitions() if before == token and follower in spoken}
        assert len(rivals) == 1, (token, rivals)


def test_scripted_tokens_fit_their_coordinates():
    assert len(scripted_tokens()) <= VOTE
    assert len(MODES) <= _NO_MODE  # the value slots of a head


@pytest.mark.parametrize("mode", [mode for mode in MODES if CHAINS[mode]])
def test_chain_ends_turn_within_sliding_window(mode):
    assert CHAINS[mode][-1] == TURN_END
    assert len([MARKERS[mode], *CHAINS[mode]]) <= 64
