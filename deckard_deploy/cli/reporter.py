"""The reporter of the command line: progress on stderr, as plain lines or as live displays."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.output import can_rewrite_lines, echo_command, say
from deckard_deploy.cli.screens.transfer import PlainDisplay


class TerminalReporter:
    """An operations.reporting.Reporter that writes to stderr."""

    def __init__(self) -> None:
        self._live: screens.transfer_live.LiveDisplay | None = None

    def say(self, line: str) -> None:
        """Print one line of progress, above a live line if there is one."""
        if self._live is None:
            say(line)
        else:
            self._live.say(line)

    def command(self, line: str) -> None:
        """Print the command line of another program, with --verbose."""
        echo_command(line)

    def startup(
        self, expected_s: float | None, /
    ) -> "AbstractContextManager[operations.reporting.StartupDisplay]":
        """Show a start by phases. expected_s: seconds that earlier starts took; None when there were none."""
        return screens.startup.startup_display(expected_s)

    @contextmanager
    def transfer(self, name: str, /) -> "Iterator[operations.reporting.TransferDisplay]":
        """Show the transfer of a model's files: a live line on a terminal, plain lines elsewhere."""
        if not can_rewrite_lines(sys.stderr):
            yield PlainDisplay(name)
            return

        self._live = screens.transfer_live.LiveDisplay(name)
        try:
            yield self._live
        finally:
            self._live.end()
            self._live = None


TERMINAL = TerminalReporter()
