"""`service`: start a deployment with the machine."""

from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import dry_run_option, selection_option
from deckard_deploy.cli.program import installed_program
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.group()
def service() -> None:
    """Start the endpoint with the machine, by a systemd unit that runs `watch`.

    \b
    Example:
      deckard-deploy service install --name spark
    """


@service.command()
@selection_option
@click.option("--program", metavar="PATH", help="The deckard-deploy that the unit starts; default: this one.")
@dry_run_option
def install(selection: Selection, *, program: str | None, dry_run: bool) -> None:
    """Write, enable and start the unit, and see it run.

    As root it is the machine's unit; as another user it is the user's own, which starts with the machine
    because lingering is turned on. What runs is not restarted.

    \b
    Example:
      deckard-deploy service install --name spark
    """
    words = (str(Path(program).absolute()),) if program else installed_program()
    found = operations.service.install(selection, TERMINAL, program=words, dry_run=dry_run)
    click.echo(str(found.file))


@service.command()
@selection_option
@dry_run_option
def remove(selection: Selection, *, dry_run: bool) -> None:
    """Stop, disable and remove the unit. The endpoint runs on.

    \b
    Example:
      deckard-deploy service remove --name spark
    """
    operations.service.remove(selection, TERMINAL, dry_run=dry_run)
