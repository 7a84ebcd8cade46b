"""`adopt`: adopt a stack that was started by hand."""

from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import dry_run_option, state_option
from deckard_deploy.cli.reporter import TERMINAL


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@state_option
@dry_run_option
def adopt(folder: Path, *, state_dir: Path | None, dry_run: bool) -> None:
    """Adopt a stack that was started by hand from a folder of `render all`.

    The engine is not restarted. The folder's keys become keys of this host. The base URL is the only thing on
    stdout.

    \b
    Example:
      deckard-deploy adopt /srv/deploy/spark
    """
    click.echo(operations.adopt.run(folder, state_dir, TERMINAL, dry_run=dry_run))
