"""`status`: the facts of a deployment as a table or as JSON."""

import json

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import json_option, selection_option
from deckard_deploy.cli.output import table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@json_option
def status(*, selection: Selection, as_json: bool) -> None:
    """Say what runs, since when, and whether it answers.

    \b
    Example:
      deckard-deploy status --json
    """
    facts = operations.status.read_status(selection, TERMINAL)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    rows = []
    for key, value in facts.items():
        for text in _texts(value):
            rows.append((key.replace("_", " "), text))
    table(rows)


def _texts(value: object) -> list[str]:
    """Return one line for each value of a list, and none for a value that is not known."""
    if value is None:
        return []
    if isinstance(value, list):
        return [str(each) for each in value]
    return [str(value)]
