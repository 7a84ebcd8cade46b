"""A question to a server, in a thread of its own: whoever asks can look at other things meanwhile, or stop waiting."""

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

from deckard_deploy.errors import DeployError

Answer = TypeVar("Answer")


class Asking(Thread, Generic[Answer]):
    """`question` under way. A server that sends a byte now and then outlives every timeout of a socket.

    Nobody waits for the thread when the program ends; until then it stays with a server that does not hang up.
    """

    def __init__(self, question: Callable[[], Answer]) -> None:
        super().__init__(daemon=True)
        self._question = question
        self._answer: Answer | None = None
        self._error: DeployError | None = None
        self.start()

    def run(self) -> None:
        """In the thread."""
        try:
            self._answer = self._question()
        except DeployError as error:
            self._error = error

    def answer(self, wait_s: float) -> Answer | None:
        """The answer, or None when it has not come `wait_s` seconds from now. Raises the question's DeployError."""
        self.join(wait_s)
        if self.is_alive():
            return None
        if self._error:
            raise self._error
        if self._answer is None:
            raise RuntimeError("a question ended without an answer; its traceback is above")
        return self._answer
