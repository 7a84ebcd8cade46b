"""`support`: one archive for a bug report, whose content is listed before it is written."""

import os
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import dry_run_option, selection_option
from deckard_deploy.cli.redaction import redacted
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection

DEFAULT = Path("deckard-support.tar.gz")


@click.command()
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT,
    show_default=True,
    help="The archive.",
)
@dry_run_option
@selection_option
def support(*, selection: Selection, path: Path, dry_run: bool) -> None:
    """Collect facts, findings, plans and the ends of logs for a bug report.

    Secrets, the names of the user and the machine, addresses and logged requests are taken out. Every file is
    listed before the archive is written; look into it before you send it.

    \b
    Example:
      deckard-deploy support --dry-run
    """
    files = operations.support.collect(selection, TERMINAL, redact=redacted, environment=os.environ)
    for file in files:
        TERMINAL.say(f"{len(file.text.encode()):>8} bytes  {file.name}: {file.about}")
    if dry_run:
        TERMINAL.say("dry run: nothing is written")
        return
    operations.support.write_archive(files, path)
    click.echo(path)
