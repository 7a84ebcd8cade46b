"""Each token of each chain has one follower: what lm_head can learn from three votes."""

import pytest

from deckard_deploy.rehearsal.layers import _NO_MODE, VOTE
from deckard_deploy.rehearsal.script import CHAINS, MARKERS, MODES, TURN_END, scripted_tokens, transitions


@pytest.mark.parametrize("mode", MODES)
def test_no_other_word_of_a_mode_follows_the_same_token(mode):
    spoken = {follower for other, _, follower in transitions() if other == mode}
    for token in {token for other, token, _ in transitions() if other == mode}:
        rivals = {follower for _, before, follower in transitions() if before == token and follower in spoken}
        assert len(rivals) == 1, (token, rivals)


def test_the_scripted_tokens_fit_their_coordinates():
    assert len(scripted_tokens()) <= VOTE
    assert len(MODES) <= _NO_MODE  # the value slots of a head


@pytest.mark.parametrize("mode", [mode for mode in MODES if CHAINS[mode]])
def test_a_chain_ends_its_turn_and_stays_in_the_sliding_window_of_its_marker(mode):
    assert CHAINS[mode][-1] == TURN_END
    assert len([MARKERS[mode], *CHAINS[mode]]) <= 64
