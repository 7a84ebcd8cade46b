"""A call in a thread of its own: its caller can do other things meanwhile, or stop waiting."""

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

from deckard_deploy.errors import DeployError

Result = TypeVar("Result")


class BackgroundCall(Thread, Generic[Result]):
    """A running call of `question`.

    A server that sends a byte now and then outlives every socket timeout, so only the caller can stop
    waiting. The thread then stays with a server that does not hang up; it does not keep the program from
    ending.
    """

    def __init__(self, question: Callable[[], Result]) -> None:
        super().__init__(daemon=True)
        self._question = question
        self._result: Result | None = None
        self._error: DeployError | None = None
        self.start()

    def run(self) -> None:
        """Run the call; the thread's body."""
        try:
            self._result = self._question()
        except DeployError as error:
            self._error = error

    def answer(self, wait_s: float) -> Result | None:
        """Return the result, or None if `wait_s` seconds pass first. Raises the call's DeployError."""
        self.join(wait_s)
        if self.is_alive():
            return None
        if self._error:
            raise self._error
        if self._result is None:
            raise RuntimeError("a question ended without an answer; its traceback is above")
        return self._result
