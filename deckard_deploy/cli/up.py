"""`up`: start an endpoint from a profile, and prove it."""

import time
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import choice_options, dry_run_option, locked_option, state_option
from deckard_deploy.cli.output import say
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice, UpOptions
from deckard_deploy.system.text import clock


@click.command()
@choice_options
@state_option
@locked_option
@dry_run_option
@click.option(
    "--upgrade",
    is_flag=True,
    help="Replace an engine that this version of the tool plans differently for the same choice.",
)
@click.option("--force", is_flag=True, help="Start even if `doctor` reports failures.")
def up(  # noqa: PLR0913  one for each option
    choice: Choice, *, state_dir: Path | None, locked: bool, dry_run: bool, upgrade: bool, force: bool
) -> None:
    """Start the endpoint and wait until it is proven ready.

    Without --profile, the profile of this machine is selected and reported. The base URL is the only
    thing on stdout. An engine that answers is replaced if your choice has changed. If your
    choice is the same, and this version of the tool plans the engine differently, it is left alone unless --upgrade
    is given.

    \b
    Example:
      deckard-deploy up --profile cpu
    """
    options = UpOptions(locked=locked, force=force, upgrade=upgrade)
    if dry_run:
        operations.replicas.dry_run(choice, state_dir, TERMINAL, options)
        return
    started = time.monotonic()
    plan = operations.replicas.up(choice, state_dir, TERMINAL, options).plan
    took = clock(time.monotonic() - started)
    say(f"took     {took}; try: {operations.deployments.example_command(plan)}")
    click.echo(plan.base_url)
