"""`bench report`: a record as a page with plots."""

from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.names import record_names
from deckard_deploy.cli.options import state_option
from deckard_deploy.cli.reporter import TERMINAL


@click.command()
@click.argument("record", default="last", shell_complete=record_names)
@click.option("--compare", "against", metavar="NAME", help="Compare with a published table: seed.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder; default: the current one.",
)
@state_option
def report(record: str, *, against: str | None, output: Path | None, state_dir: Path | None) -> None:
    """Write a record as one HTML page, and its plots as PNG files.

    The path of the page is the only thing on stdout. Without matplotlib the page has no plots.

    \b
    Example:
      deckard-deploy bench report last --compare seed -o report
    """
    click.echo(
        operations.bench_report.write_report(record, state_dir, output or Path(), TERMINAL, against=against)
    )
