"""`rollback`: return to the previous release."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import dry_run_option, selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@dry_run_option
def rollback(*, selection: Selection, dry_run: bool) -> None:
    """Roll back to the previous release.

    It is started and proven as by `up`. If it fails to start, the current release is started again. The base URL
    is the only output on stdout. A second `rollback` returns to the current release.

    \b
    Example:
      deckard-deploy rollback --name spark
    """
    base_url = operations.replicas.rollback(selection, TERMINAL, dry_run=dry_run)
    if base_url:
        click.echo(base_url)
