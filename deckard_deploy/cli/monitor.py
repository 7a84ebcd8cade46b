"""`monitor`: Prometheus and Grafana next to a deployment, or next to all of them."""

import functools
from pathlib import Path
from typing import Any

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import Command, dry_run_option, selection_option
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


def images_options(command: Command) -> Command:
    """Add the parameter `images` to a verb: the images under other names, as in a mirror."""

    @functools.wraps(command)
    def with_images(prometheus_image: str | None, grafana_image: str | None, **options: Any) -> object:
        images = operations.monitoring.DEFAULT_IMAGES
        if prometheus_image:
            images = images._replace(prometheus=prometheus_image)
        if grafana_image:
            images = images._replace(grafana=grafana_image)
        return command(images=images, **options)

    prometheus = click.option(
        "--prometheus-image", metavar="IMAGE", help="Prometheus under another name, for example in a mirror."
    )
    grafana = click.option("--grafana-image", metavar="IMAGE", help="Grafana under another name.")
    return prometheus(grafana(with_images))


every_option = click.option(
    "--all", "every", is_flag=True, help="One Prometheus and one Grafana for every deployment that runs."
)


@monitor.command()
@selection_option
@every_option
@images_options
@click.option(
    "--prometheus-port", type=click.IntRange(1, 65535), default=9090, show_default=True, help="On 127.0.0.1."
)
@click.option(
    "--grafana-port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="On 127.0.0.1."
)
@click.option("--dry-run", is_flag=True, help="Print what would run; start and write nothing.")
def up(  # noqa: PLR0913  one parameter per option
    *,
    selection: Selection,
    images: "operations.monitoring.Images",
    prometheus_port: int,
    grafana_port: int,
    every: bool,
    dry_run: bool,
) -> None:
    """Start both, with dashboard and alerts, and print Grafana's address.

    \b
    Example:
      deckard-deploy monitor up --grafana-port 3001
      deckard-deploy monitor up --all
    """
    address = operations.monitoring.start(
        selection,
        TERMINAL,
        prometheus_port=prometheus_port,
        grafana_port=grafana_port,
        images=images,
        every=every,
        dry_run=dry_run,
    )
    if not dry_run:
        click.echo(address)


@monitor.command()
@selection_option
@every_option
@click.option("--purge", is_flag=True, help="Also remove the stored metrics, the settings and the password.")
@dry_run_option
def down(*, selection: Selection, every: bool, purge: bool, dry_run: bool) -> None:
    """Stop both; their figures stay for the next `monitor up`.

    \b
    Example:
      deckard-deploy monitor down
    """
    if dry_run:
        operations.monitoring.explain_stop(selection, TERMINAL, every=every, purge=purge)
        return
    name, stopped = operations.monitoring.stop(selection, TERMINAL, every=every)
    if stopped:
        say(f"nothing monitors {name} any more")
    else:
        say(f"nothing monitors {name}")
    if purge:
        folder = operations.monitoring.purge(selection, every=every)
        if folder:
            say(f"removed  {folder}")


@monitor.command()
@images_options
@plan_options
def render(
    files: "operations.render.PlanFiles", output: Path | None, images: "operations.monitoring.Images"
) -> None:
    """Write the files into the folder of --output.

    The password is not among them: put one of your own into the file that is reported.

    \b
    Example:
      deckard-deploy monitor render --profile spark -o monitoring
    """
    if output is None:
        raise BadInputError("this writes several files", hint="deckard-deploy monitor render --output FOLDER")
    password = operations.monitoring.write_files(files.plan, output, images)
    say(f"written to {output}; put a password into {password}, with mode 600")
