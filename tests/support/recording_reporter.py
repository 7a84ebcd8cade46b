"""A reporter that keeps the lines of an operation."""

from deckard_deploy.operations.reporting import SilentReporter


class RecordingReporter(SilentReporter):
    """A reporter without displays; its lines are those that were reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)
