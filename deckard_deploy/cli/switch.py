"""`switch`: stop one deployment and start another."""

from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.names import deployment_names
from deckard_deploy.cli.options import dry_run_option, state_option
from deckard_deploy.cli.reporter import TERMINAL


@click.command()
@click.argument("stopped", metavar="FROM", shell_complete=deployment_names)
@click.argument("started", metavar="TO", shell_complete=deployment_names)
@state_option
@dry_run_option
def switch(stopped: str, started: str, state_dir: Path | None, *, dry_run: bool) -> None:
    """Stop one deployment and start another.

    For two that do not fit on one machine together. TO is started and proven as by `start`. If it fails, FROM is
    started again. The base URL is the only output on stdout.

    \b
    Example:
      deckard-deploy switch chat coder
    """
    base_url = operations.switch.run(stopped, started, state_dir, TERMINAL, dry_run=dry_run)
    if base_url:
        click.echo(base_url)
