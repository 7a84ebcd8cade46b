"""What people see. stdout is data; talk and progress go to stderr."""

from collections.abc import Sequence
from pathlib import Path

import click

from deckard_deploy.cli.redaction import redacted
from deckard_deploy.errors import BadInputError


def table(rows: Sequence[Sequence[str]]) -> None:
    """Columns on stdout, as wide as they need; no frame, so that `cut` and `awk` work."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say(text: str) -> None:
    """One line for the person who waits."""
    click.echo(redacted(text), err=True)


def echo_command(text: str) -> None:
    """The command line of another program, for `--verbose`."""
    context = click.get_current_context(silent=True)
    if context and context.find_root().params.get("verbose"):
        say(text)


def write_text(text: str, output: Path | None) -> None:
    """Write text to a file, or to stdout without one. Raises BadInputError when the file cannot be written."""
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{output}: {error.strerror or error}") from error
