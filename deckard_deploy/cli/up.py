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
    "--upgrade", is_flag=True, help="Replace an engine that only this version of the tool starts otherwise."
)
@click.option("--force", is_flag=True, help="Start even if `doctor` reports failures.")
def up(  # noqa: PLR0913  one for each option
    choice: Choice, *, state_dir: Path | None, locked: bool, dry_run: bool, upgrade: bool, force: bool
) -> None:
    """Start the endpoint and wait until it is proven ready.

    Without --profile, the profile of this machine is selected and reported. The base URL is the only
    thing on stdout. An engine that answers is replaced only when you ask for something else than before; when
    only this version of the tool would start it otherwise, that takes --upgrade.

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
