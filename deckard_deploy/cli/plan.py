"""`plan`: the plan that `up` would run, and its changes."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.options import choice_options, compat_option, locked_option, state_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice


@click.command()
@compat_option
@choice_options
@state_option
@locked_option
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--full", is_flag=True, help="Show every option, environment variable, mount and patch.")
@click.option("--explain", is_flag=True, help="Show the formulas, and the sources of the assumptions.")
def plan(  # noqa: PLR0913  one parameter per option
    choice: Choice, *, state_dir: Path | None, locked: bool, as_json: bool, full: bool, explain: bool
) -> None:
    """Show what `up` would run, and what would change.

    Without --profile, the profile of this machine is selected and reported.
    Exit code 9 when it does not fit into the GPU's memory.

    \b
    Example:
      deckard-deploy plan --profile spark --set max-num-seqs=8
    """
    view = operations.plan.view_plan(choice, state_dir, TERMINAL, locked=locked)
    if as_json:
        click.echo(json.dumps(screens.plan.view_json(view), indent=2))
    else:
        screens.plan.print_plan(view, explain=explain, full=full)
    operations.plan.require_fit(view)
