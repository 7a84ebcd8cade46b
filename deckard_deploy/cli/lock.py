"""`lock`: record the exact parts of a deployment, for review and for git."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import choice_options, json_option
from deckard_deploy.cli.output import say
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice


@click.command()
@choice_options
@click.option("--lock-file", type=click.Path(path_type=Path), help="Default: ./deckard.lock.")
@click.option(
    "--check", is_flag=True, help="Write nothing; print what changed, and exit with code 4 if anything did."
)
@click.option("--dry-run", is_flag=True, help="Write nothing; print what would change.")
@json_option
def lock(*, choice: Choice, lock_file: Path | None, check: bool, dry_run: bool, as_json: bool) -> None:
    """Resolve models to commits and hashes, images to digests, patches and plugins to hashes.

    Entries of other deployments in the same file stay as they are.

    \b
    Example:
      deckard-deploy lock --profile spark
    """
    update = operations.lock.resolve_lock(choice, lock_file, TERMINAL)
    if as_json:
        click.echo(
            json.dumps({"lock_file": str(update.path), "differences": list(update.differences)}, indent=2)
        )
    else:
        for line in update.differences:
            click.echo(line)
    moved = len(update.differences)
    if check:
        outcome = f"{moved} entries changed" if moved else "nothing changed"
        say(f"lock     {update.path}: {outcome}")
        if moved:
            click.get_current_context().exit(4)
    elif not dry_run:
        operations.lock.write_lock(update)
        say(f"lock     {update.path}: {moved} changes written; review it and commit it")
