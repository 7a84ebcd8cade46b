"""`pull`: fetch the weights, with resume and verification."""

from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import choice_options, lock_options, state_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice, LockUse


@click.command()
@choice_options
@state_option
@lock_options
@click.option("--dry-run", is_flag=True, help="Print what would be downloaded, and download nothing.")
def pull(*, choice: Choice, state_dir: Path | None, lock: LockUse, dry_run: bool) -> None:
    """Download a deployment's weights, with resume and verification.

    Each model's folder is printed on stdout. Complete and partial files are not downloaded again.

    \b
    Example:
      deckard-deploy pull --profile spark
    """
    for folder in operations.pull.pull_models(choice, state_dir, TERMINAL, lock, dry_run=dry_run):
        click.echo(folder)
