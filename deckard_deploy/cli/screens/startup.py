"""Start-up as people watch it: one live line on a terminal, plain lines anywhere else. All of it on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deckard_deploy.cli.output import say
from deckard_deploy.startup.phases import Phase, Progress
from deckard_deploy.system.text import clock


class PlainDisplay:
    """One line a phase, and one every quarter of a progress bar: what a log file can hold."""

    def __init__(self, expected_s: float | None) -> None:
        self._started = time.monotonic()
        self._expected_s = expected_s
        self._shown: tuple[Phase, int] | None = None

    def show(self, progress: Progress) -> None:
        """Print the progress unless it was printed already."""
        quarter = int((progress.percent or 0) // 25)
        if (progress.phase, quarter) != self._shown:
            self._shown = (progress.phase, quarter)
            say(f"{self._elapsed()}  {describe(progress)}")

    def _elapsed(self) -> str:
        """Elapsed time, and what earlier starts took on this host."""
        elapsed = clock(time.monotonic() - self._started)
        return f"{elapsed} / ~{clock(self._expected_s)}" if self._expected_s else elapsed


class LiveDisplay(PlainDisplay):
    """Finished phases stay as lines; the current one is redrawn below them with a running clock."""

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
        """Remember what to draw; a phase that has ended becomes a line of its own."""
        before, self._progress = self._progress, progress
        if before and before.phase != progress.phase:
            self._finished(before, progress.since)

    def end(self) -> None:
        """The last phase ended well."""
        if self._progress:
            self._finished(self._progress, time.monotonic())

    def _finished(self, progress: Progress, now: float) -> None:
        self._console.print(f"  [green]✓[/green] {progress.phase}  [dim]{clock(now - progress.since)}[/dim]")

    def _line(self) -> str:
        if self._progress is None:
            return f"  starting  [dim]{self._elapsed()}[/dim]"
        return f"  [cyan]▸[/cyan] {describe(self._progress)}  [dim]{self._elapsed()}[/dim]"


@contextmanager
def startup_display(expected_s: float | None) -> Iterator[PlainDisplay]:
    """The display that fits stderr. `expected_s`: seconds that earlier starts took, None when there were none."""
    if not sys.stderr.isatty():
        yield PlainDisplay(expected_s)
        return
    display = LiveDisplay(expected_s)
    with display.live:
        yield display
        display.end()


def describe(progress: Progress) -> str:
    """`weights 52 % (safetensors shards)`."""
    percent = "" if progress.percent is None else f" {progress.percent:.0f} %"
    return f"{progress.phase}{percent}" + (f" ({progress.step})" if progress.step else "")
