"""`down`: stop a deployment, and with --purge remove it."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import dry_run_option, selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@click.option(
    "--purge",
    is_flag=True,
    help="Also remove its releases and, with the last deployment, the installed engines.",
)
@dry_run_option
def down(*, selection: Selection, purge: bool, dry_run: bool) -> None:
    """Stop the endpoint and remove what was started.

    Downloaded weights always stay.

    \b
    Example:
      deckard-deploy down --profile cpu --purge
    """
    operations.replicas.down(selection, TERMINAL, purge=purge, dry_run=dry_run)
