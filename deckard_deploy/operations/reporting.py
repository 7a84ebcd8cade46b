"""The Reporter of an operation: its progress for the user who waits.

An operation prints nothing. The command line passes a reporter that writes to the terminal; a script passes
its own, or SILENT.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from deckard_deploy.startup.phases import Progress


class StartupDisplay(Protocol):
    """A display of the progress of a start."""

    def show(self, progress: "Progress") -> None:
        """Show the current phase."""


class TransferDisplay(Protocol):
    """A display of the progress of a transfer."""

    def show(self, done: int, total: int) -> None:
        """Show the bytes that have arrived, and the total."""


class Reporter(Protocol):
    """The messages of an operation while it runs. Results are returned, not reported."""

    def say(self, line: str) -> None:
        """Report one line of progress."""

    def command(self, line: str) -> None:
        """Report the command line of another program that is run."""

    def startup(self, expected_s: float | None, /) -> AbstractContextManager[StartupDisplay]:
        """Report a start. expected_s: seconds that earlier starts took; None when there were none."""

    def transfer(self, name: str, /) -> AbstractContextManager[TransferDisplay]:
        """Report the transfer of a model's files."""


class _Nothing:
    def show(self, *_: object) -> None:
        """Show nothing."""


class SilentReporter:
    """A reporter that reports nothing."""

    def say(self, line: str) -> None:
        """Drop the line."""

    def command(self, line: str) -> None:
        """Drop the line."""

    @contextmanager
    def startup(self, _expected_s: float | None, /) -> Iterator[StartupDisplay]:
        """Show nothing of a start."""
        yield _Nothing()

    @contextmanager
    def transfer(self, _name: str, /) -> Iterator[TransferDisplay]:
        """Show nothing of a transfer."""
        yield _Nothing()


SILENT = SilentReporter()
