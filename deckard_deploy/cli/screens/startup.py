"""The progress of a start on stderr: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deckard_deploy.cli.output import say
from deckard_deploy.startup.phases import Phase, Progress
from deckard_deploy.system.text import clock


class PlainDisplay:
    """A line for each phase, and for each quarter of a progress bar, as a log file can hold."""

    def __init__(self, expected_s: float | None) -> None:
        self._started = time.monotonic()
        self._expected_s = expected_s
        self._printed: tuple[Phase, int] | None = None

    def show(self, progress: Progress) -> None:
        """Print the progress unless it was printed already."""
        quarter = int((progress.percent or 0) // 25)
        if (progress.phase, quarter) != self._printed:
            self._printed = (progress.phase, quarter)
            say(f"{self._elapsed()}  {describe(progress)}")

    def _elapsed(self) -> str:
        """Return the elapsed time, and the time that earlier starts took on this host."""
        elapsed = clock(time.monotonic() - self._started)
        if self._expected_s:
            return f"{elapsed} / ~{clock(self._expected_s)}"
        return elapsed


class LiveDisplay(PlainDisplay):
    """A line for each finished phase; below them a live line of the current phase with its clock."""

    def __init__(self, expected_s: float | None) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(expected_s)
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self.live = Live(
            console=self._console, get_renderable=self._line, refresh_per_second=4, transient=True
        )

    def show(self, progress: Progress) -> None:
        """Draw the progress from now on. A phase that has ended is printed as a line of its own."""
        before = self._progress
        self._progress = progress
        if before and before.phase != progress.phase:
            self._print_finished(before, progress.since)

    def end(self) -> None:
        """Print the last phase, which has succeeded."""
        if self._progress:
            self._print_finished(self._progress, time.monotonic())

    def _print_finished(self, progress: Progress, ended: float) -> None:
        took = clock(ended - progress.since)
        self._console.print(f"  [green]✓[/green] {progress.phase}  [dim]{took}[/dim]")

    def _line(self) -> str:
        if self._progress is None:
            return f"  starting  [dim]{self._elapsed()}[/dim]"
        return f"  [cyan]▸[/cyan] {describe(self._progress)}  [dim]{self._elapsed()}[/dim]"


@contextmanager
def startup_display(expected_s: float | None) -> Iterator[PlainDisplay]:
    """Yield the display that fits stderr.

    expected_s: seconds that earlier starts took; None when there were none.
    """
    if not sys.stderr.isatty():
        yield PlainDisplay(expected_s)
        return
    display = LiveDisplay(expected_s)
    with display.live:
        yield display
        display.end()


def describe(progress: Progress) -> str:
    """Return the progress as text, such as `weights 52 % (safetensors shards)`."""
    text = str(progress.phase)
    if progress.percent is not None:
        text += f" {progress.percent:.0f} %"
    if progress.step:
        text += f" ({progress.step})"
    return text
