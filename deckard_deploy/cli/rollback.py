"""`rollback`: bring the previous release back."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import dry_run_option, selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@dry_run_option
def rollback(*, selection: Selection, dry_run: bool) -> None:
    """Bring the release before the current one back.

    It is started and proven as by `up`; when it does not come up, the current one is brought back. The base
    URL is the only thing on stdout. A second `rollback` goes forward again.

    \b
    Example:
      deckard-deploy rollback --name spark
    """
    base_url = operations.rollback.run(selection, TERMINAL, dry_run=dry_run)
    if base_url:
        click.echo(base_url)
