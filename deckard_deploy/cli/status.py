"""`status`: the facts of a deployment, or a line for each of several, as a table or as JSON."""

import json
from typing import Any

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import json_option, selection_option
from deckard_deploy.cli.output import fitting, say, table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection

# The first ones fit on 80 columns.
COLUMNS = ("deployment", "condition", "base_url", "since", "model", "watch", "profile", "engine")


@click.command()
@selection_option
@json_option
@click.option("--all", "everything", is_flag=True, help="All deployments as a list, also a single one.")
def status(*, selection: Selection, as_json: bool, everything: bool) -> None:
    """Report what runs, since when, and whether it answers.

    Several deployments, and a front with its replicas, are a table, or a JSON list. The exit code: 0 ready, 7
    loading, 6 failed or not answering, 3 stopped or unknown; of several the worst, in the order 6, 3, 7, 0.

    \b
    Example:
      deckard-deploy status --json
    """
    if everything or operations.deployments.are_several(selection):
        facts = operations.status.read_all(selection, TERMINAL)
        _show_all(facts, as_json=as_json)
    elif group := operations.replicas.read_status(selection, TERMINAL):
        facts = group
        _show_all(facts, as_json=as_json)
    else:
        facts = [operations.status.read_status(selection, TERMINAL)]
        _show_one(facts[0], as_json=as_json)
    click.get_current_context().exit(operations.status.exit_code(facts))


def _show_one(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    rows = []
    for key, value in facts.items():
        for text in _texts(value):
            rows.append((key.replace("_", " "), text))
    table(rows)


def _show_all(facts: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [[column.replace("_", " ") for column in COLUMNS]]
    for each in facts:
        rows.append([str(each.get(column) or "-") for column in COLUMNS])
    shown = fitting(rows)
    table(shown)
    hidden = rows[0][len(shown[0]) :]
    if hidden:
        say(f"not on this screen: {', '.join(hidden)}; see: deckard-deploy status --all --json")


def _texts(value: object) -> list[str]:
    """Return one line for each value of a list, and none for a value that is not known."""
    if value is None:
        return []
    if isinstance(value, list):
        return [str(each) for each in value]
    return [str(value)]
