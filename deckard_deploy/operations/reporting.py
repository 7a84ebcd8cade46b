"""Reporter: how an operation tells the person who waits what it does.

An operation prints nothing. The command line passes a reporter that writes to the terminal; a script passes one of its
own, or SILENT.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from deckard_deploy.startup.phases import Progress


class StartupDisplay(Protocol):
    """The place where the progress of a start is shown."""

    def show(self, progress: Progress) -> None:
        """Show the phase that the start is in."""


class TransferDisplay(Protocol):
    """The place where the progress of a transfer is shown."""

    def show(self, done: int, total: int) -> None:
        """Show the bytes that have arrived, and the bytes in all."""


class Reporter(Protocol):
    """What an operation reports while it runs. All of it is talk: results are returned."""

    def say(self, line: str) -> None:
        """Report one line of progress."""

    def command(self, line: str) -> None:
        """Report the command line of another program that is run."""

    def startup(self, expected_s: float | None) -> AbstractContextManager[StartupDisplay]:
        """Report a start. expected_s: seconds that earlier starts took; None when there were none."""

    def transfer(self, name: str) -> AbstractContextManager[TransferDisplay]:
        """Report the transfer of something with a name."""


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
    def startup(self, expected_s: float | None) -> Iterator[StartupDisplay]:  # noqa: ARG002  the protocol's
        """Show nothing of a start."""
        yield _Nothing()

    @contextmanager
    def transfer(self, name: str) -> Iterator[TransferDisplay]:  # noqa: ARG002  the protocol's
        """Show nothing of a transfer."""
        yield _Nothing()


SILENT = SilentReporter()
