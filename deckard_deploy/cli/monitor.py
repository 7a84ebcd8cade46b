"""`monitor`: Prometheus and Grafana next to a deployment."""

from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import selection_option
from deckard_deploy.cli.output import say
from deckard_deploy.cli.render import plan_options
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.options import Selection


@click.group()
def monitor() -> None:
    """Run Prometheus and Grafana next to the endpoint, on this machine only.

    \b
    Example:
      deckard-deploy monitor up
    """


@monitor.command()
@selection_option
@click.option(
    "--prometheus-port", type=click.IntRange(1, 65535), default=9090, show_default=True, help="On 127.0.0.1."
)
@click.option(
    "--grafana-port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="On 127.0.0.1."
)
@click.option("--dry-run", is_flag=True, help="Print what would run; start and write nothing.")
def up(*, selection: Selection, prometheus_port: int, grafana_port: int, dry_run: bool) -> None:
    """Start both, with dashboard and alerts, and print Grafana's address.

    \b
    Example:
      deckard-deploy monitor up --grafana-port 3001
    """
    address = operations.monitoring.start(
        selection,
        TERMINAL,
        prometheus_port=prometheus_port,
        grafana_port=grafana_port,
        dry_run=dry_run,
    )
    if not dry_run:
        click.echo(address)


@monitor.command()
@selection_option
@click.option("--purge", is_flag=True, help="Remove its figures, its settings and the password too.")
def down(*, selection: Selection, purge: bool) -> None:
    """Stop both; their figures stay for the next `monitor up`.

    \b
    Example:
      deckard-deploy monitor down
    """
    name, stopped = operations.monitoring.stop(selection, TERMINAL)
    if stopped:
        say(f"nothing monitors {name} any more")
    else:
        say(f"nothing monitors {name}")
    if purge:
        folder = operations.monitoring.purge(selection)
        if folder:
            say(f"removed  {folder}")


@monitor.command()
@plan_options
def render(files: "operations.render.PlanFiles", output: Path | None) -> None:
    """Write the files into the folder of --output.

    The password is not among them: put one of your own into the file that is reported.

    \b
    Example:
      deckard-deploy monitor render --profile spark -o monitoring
    """
    if output is None:
        raise BadInputError("this writes several files", hint="deckard-deploy monitor render --output FOLDER")
    password = operations.monitoring.write_files(files.plan, output)
    say(f"written to {output}; put a password into {password}, with mode 600")
