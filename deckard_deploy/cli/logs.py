"""`logs`: the engine's log."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the engine stops or ^C.")
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), default=200, show_default=True, help="Lines from the end."
)
@click.option("--gateway", is_flag=True, help="The log of nginx, in place of the engine's.")
def logs(*, selection: Selection, follow: bool, tail: int, gateway: bool) -> None:
    """Print the engine's log.

    If the last start has failed and nothing is running, the log of that start is printed.

    \b
    Example:
      deckard-deploy logs --follow
    """
    if gateway and follow:
        raise BadInputError("--follow is for the engine's log", hint="deckard-deploy logs --gateway --tail N")
    if gateway:
        for line in operations.logs.gateway_lines(selection, TERMINAL, tail=tail):
            click.echo(line)
        return
    for line in operations.logs.lines(selection, TERMINAL, follow=follow, tail=tail):
        click.echo(line)
