"""The reporter of the command line: progress on stderr, as lines or as live displays."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from deckard_deploy.cli.output import echo_command, say

if TYPE_CHECKING:
    from deckard_deploy.operations.reporting import StartupDisplay, TransferDisplay


class TerminalReporter:
    """An operations.reporting.Reporter that writes to stderr."""

    def say(self, line: str) -> None:
        """Print one line of progress."""
        say(line)

    def command(self, line: str) -> None:
        """Print the command line of another program, with --verbose."""
        echo_command(line)

    def startup(self, expected_s: float | None) -> "AbstractContextManager[StartupDisplay]":
        """Show a start by phases. expected_s: seconds that earlier starts took; None when there were none."""
        from deckard_deploy.cli.screens.startup import startup_display

        return startup_display(expected_s)

    @contextmanager
    def transfer(self, name: str) -> "Iterator[TransferDisplay]":
        """Show the transfer of a model's files."""
        from deckard_deploy.cli.screens.transfer import Display

        display = Display(name)
        try:
            yield display
        finally:
            display.end()


TERMINAL = TerminalReporter()
