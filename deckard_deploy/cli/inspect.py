"""`inspect`: the facts and faults of a checkpoint, from its headers."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.names import catalog_names
from deckard_deploy.cli.options import json_option, state_option
from deckard_deploy.cli.output import table


@click.command()
@click.argument("model", metavar="MODEL|DIR", shell_complete=catalog_names("models"))
@click.option("--drafter", metavar="MODEL|DIR", help="Check that this model can draft for it.")
@click.option(
    "--nan", "count_nan", is_flag=True, help="Read the weight scales too, and count those that are NaN."
)
@json_option
@state_option
def inspect(
    *, model: str, drafter: str | None, count_nan: bool, as_json: bool, state_dir: Path | None
) -> None:
    """Show the contents and the faults of a checkpoint.

    Reads headers and configuration only. The exit code is 4 when the checkpoint cannot be served.

    \b
    Example:
      deckard-deploy inspect deckard-31b
    """
    checkpoint = operations.inspect.inspect_checkpoint(model, drafter, state_dir, count_nan=count_nan)
    if as_json:
        facts = checkpoint.found.as_json() | {
            "patches": checkpoint.patches,
            "chat_template": checkpoint.template._asdict(),
        }
        click.echo(json.dumps(facts, indent=2))
    else:
        table(screens.inspect.checkpoint_rows(checkpoint))
    if checkpoint.found.faults:
        click.get_current_context().exit(4)
