"""A call in a thread: its result, its error, and a caller that stops waiting."""

import threading

import pytest

from deckard_deploy.errors import NetworkError
from deckard_deploy.startup.background_call import BackgroundCall

WAIT_S = 60.0  # only a failed test waits so long


def test_result_can_be_read_again():
    call = BackgroundCall(lambda: "ready")
    assert [call.answer(WAIT_S), call.answer(WAIT_S)] == ["ready", "ready"]


def test_running_call_has_no_answer_yet():
    release = threading.Event()
    call = BackgroundCall(lambda: release.wait(WAIT_S))
    assert call.answer(0.0) is None
    assert call.daemon  # it does not keep the program from ending
    release.set()
    assert call.answer(WAIT_S) is True


def test_error_of_the_call_is_raised():
    def fails() -> str:
        raise NetworkError("no route")

    call = BackgroundCall(fails)
    with pytest.raises(NetworkError, match="no route"):
        call.answer(WAIT_S)


def test_call_without_result_is_a_bug():
    call: BackgroundCall[object] = BackgroundCall(lambda: None)
    with pytest.raises(RuntimeError, match="without an answer"):
        call.answer(WAIT_S)
