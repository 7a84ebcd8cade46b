"""`connect`: the configuration of a client on stdout, and what it needs on stderr."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import selection_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@click.argument("client", required=False)
@selection_option
@click.option("--key", "key_name", metavar="NAME", help="The name of the key that the client will use.")
@click.option("--check", is_flag=True, help="Make the request that the client makes, and say what came.")
def connect(client: str | None, *, selection: Selection, key_name: str | None, check: bool) -> None:
    """Print the configuration of a client for the running endpoint.

    Without a client, list those there are. A key is never printed: the configuration reads the variable
    DECKARD_KEY.

    \b
    Example:
      deckard-deploy connect claude-code --key alice
    """
    if client is None:
        table([(name, known.about) for name, known in operations.connect.CLIENTS.items()])
        return
    chosen = operations.connect.client(client)
    endpoint, access = operations.connect.endpoint_of(selection, TERMINAL)
    operations.connect.require_task(client, endpoint)
    for note in operations.connect.notes(chosen, endpoint, key_name):
        say(note)
    if check:
        click.echo(operations.connect.check(client, endpoint, access))
        return
    click.echo(chosen.configuration(endpoint), nl=False)
