"""Output of the verbs: data on stdout; messages and progress on stderr."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from deckard_deploy.cli.program import typed
from deckard_deploy.cli.redaction import redacted
from deckard_deploy.errors import BadInputError


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns on stdout, without a frame, so that `cut` and `awk` work."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def say(text: str) -> None:
    """Print one line of progress on stderr, without secrets; commands in it as the user can type them."""
    click.echo(redacted(typed(text)), err=True)


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
