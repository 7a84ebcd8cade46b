"""`wait`: wait until the running endpoint is ready."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
def wait(selection: Selection) -> None:
    """Wait until the running endpoint is ready.

    Exit code 6 when it fails to start, 7 when its start makes no progress for the profile's
    startup_timeout_s.

    \b
    Example:
      deckard-deploy wait --profile spark && ./run-my-clients
    """
    click.echo(operations.replicas.wait(selection, TERMINAL))
