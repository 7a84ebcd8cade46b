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
@click.option(
    "--replica", metavar="K", type=click.IntRange(min=1), help="The replica of this number, from 1 on."
)
@click.option("--failed", is_flag=True, help="The log of the last failure, whatever is running now.")
def logs(  # noqa: PLR0913  one for each option
    *, selection: Selection, follow: bool, tail: int, gateway: bool, replica: int | None, failed: bool
) -> None:
    """Print the engine's log.

    If the last start has failed and nothing is running, the log of that start is printed. After a rollback the
    running release has a log of its own: --failed prints the log of the start that failed.

    \b
    Example:
      deckard-deploy logs --follow
    """
    if follow and (gateway or failed):
        option = "--gateway" if gateway else "--failed"
        raise BadInputError("--follow is for the engine's log", hint=f"deckard-deploy logs {option} --tail N")
    if replica:
        selection = operations.replicas.member(selection, replica)
    if gateway:
        shown = operations.logs.gateway_lines(selection, TERMINAL, tail=tail)
    elif failed:
        shown = operations.logs.failed_lines(selection, TERMINAL, tail=tail)
    else:
        shown = operations.logs.lines(selection, TERMINAL, follow=follow, tail=tail)
    for line in shown:
        click.echo(line)
