"""Output of the verbs: data on stdout; messages and progress on stderr."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from deckard_deploy.cli.program import typed
from deckard_deploy.cli.redaction import redacted
from deckard_deploy.errors import BadInputError
from deckard_deploy.system.text import wrapped


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns on stdout, without a frame, so that `cut` and `awk` work.

    On a terminal a long last column continues below itself, and no word is cut.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        echo_line("  ".join(cells).rstrip(), indent=sum(widths[:-1]) + 2 * len(widths[:-1]))


def echo_line(line: str, indent: int) -> None:
    """Print a line on stdout; on a terminal in lines of its width, of which all but the first are indented."""
    lines = [line]
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        lines = wrapped(line, columns, " " * min(indent, columns // 2)) or [""]
    for each in lines:
        click.echo(each)


def fitting(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the columns of a table that fit on the terminal, from the left; a pipe gets every column."""
    if not sys.stdout.isatty():
        return list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ends = [sum(widths[: number + 1]) + 2 * number for number in range(len(widths))]
    columns = shutil.get_terminal_size().columns
    shown = max(1, sum(end <= columns for end in ends))
    return [row[:shown] for row in rows]


def say(text: str) -> None:
    """Print one line of progress on stderr, without secrets; commands in it as the user can type them."""
    echo_error(typed(text))


def echo_error(text: str) -> None:
    """Print text on stderr, without secrets; on a terminal no word is cut at the end of a line."""
    text = redacted(text)
    if sys.stderr.isatty():
        text = wrapped_to_terminal(text)
    click.echo(text, err=True)


def wrapped_to_terminal(text: str) -> str:
    """Return the text in lines of the terminal's width: no word is cut, and a second line is indented."""
    columns = shutil.get_terminal_size().columns
    lines: list[str] = []
    for line in text.splitlines():
        lines += wrapped(line, columns, " " * 9) or [""]
    return "\n".join(lines)


def styled(text: str, colour: str) -> str:
    """Return the text in a colour and bold, unless NO_COLOR or a dumb terminal asks for plain text.

    no-color.org: NO_COLOR counts if it is not empty. Rich, which draws the live screens, has the same rules.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in {"dumb", "unknown"}:
        return text
    return click.style(text, fg=colour, bold=True)


def echo_command(text: str) -> None:
    """Print the command line of another program on stderr, with `--verbose` only."""
    context = click.get_current_context(silent=True)
    if context and context.find_root().params.get("verbose"):
        say(text)


def can_rewrite_lines(stream: TextIO) -> bool:
    """Return True if the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def write_text(text: str, output: Path | None) -> None:
    """Write text to a file, or to stdout without one.

    Raises BadInputError when the file cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{output}: {error.strerror or error}") from error
