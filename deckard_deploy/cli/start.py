"""`start`: start the current release again."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import dry_run_option, selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@dry_run_option
def start(*, selection: Selection, dry_run: bool) -> None:
    """Start the release again that `down` stopped.

    It keeps all the settings that it had. The base URL is the only output on stdout.

    \b
    Example:
      deckard-deploy start --name spark
    """
    base_url = operations.replicas.start(selection, TERMINAL, dry_run=dry_run)
    if base_url:
        click.echo(base_url)
