"""The progress of a transfer as a live line on a terminal."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from deckard_deploy.cli.redaction import redacted
from deckard_deploy.cli.screens.transfer import transfer_line


class LineColumn(ProgressColumn):
    """The same text as a plain line. It does not wrap: a narrow terminal cuts it."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="crop"))

    def render(self, task: Task) -> Text:
        """Return the text of a task."""
        rate = task.finished_speed or task.speed
        return Text(transfer_line(task.description, int(task.completed), int(task.total or 0), rate))


class LiveDisplay:
    """A line and a bar on stderr that are redrawn several times a second.

    Nothing is drawn until bytes arrive.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Nothing is redirected: stdout is data, and messages come by `say`.
        self._progress = Progress(
            LineColumn(),
            BarColumn(),
            console=Console(stderr=True),
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def show(self, done: int, total: int) -> None:
        """Draw the progress. done, total: bytes."""
        if self._task is None:
            self._task = self._progress.add_task(self._name, completed=done, total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total)

    def say(self, line: str) -> None:
        """Print one line above the live line, without secrets."""
        self._progress.console.print(Text(redacted(line)), soft_wrap=True)

    def end(self) -> None:
        """Leave the last state on the terminal, on a line of its own."""
        self._progress.stop()
