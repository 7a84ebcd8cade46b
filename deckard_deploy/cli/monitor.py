"""`monitor`: Prometheus and Grafana beside a deployment."""

import os
import secrets
from pathlib import Path

import click

from deckard_deploy.cli.output import echo_command, say
from deckard_deploy.cli.render import plan_options
from deckard_deploy.cli.site import endpoint
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering import monitoring
from deckard_deploy.running.docker.client import DockerEngine
from deckard_deploy.running.gateway.files import CERTIFICATE
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.files import private_folder, read_regular, remove_folder, write_atomically

UP_TIMEOUT_S = 1800.0  # two images to pull
DOWN_TIMEOUT_S = 120.0
FOLDER = "monitoring"


@click.group()
def monitor() -> None:
    """Run Prometheus and Grafana beside the endpoint, on this machine only.

    \b
    Example:
      deckard-deploy monitor up
    """


@monitor.command()
@deployment_option
@click.option(
    "--prometheus-port", type=click.IntRange(1, 65535), default=9090, show_default=True, help="On 127.0.0.1."
)
@click.option(
    "--grafana-port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="On 127.0.0.1."
)
@click.option("--dry-run", is_flag=True, help="Say what would run; start and write nothing.")
def up(deployed: Deployed, prometheus_port: int, grafana_port: int, dry_run: bool) -> None:  # noqa: FBT001  click
    """Start both, with dashboard and alerts, and print Grafana's address.

    \b
    Example:
      deckard-deploy monitor up --grafana-port 3001
    """
    plan, folder = endpoint(deployed), _folder(deployed)
    if len({plan.port, prometheus_port, grafana_port}) < 3:
        raise click.UsageError(f"the endpoint ({plan.port}), Prometheus and Grafana need a port each")
    place = monitoring.Place(
        folder=str(folder), user=_user(), prometheus_port=prometheus_port, grafana_port=grafana_port
    )
    texts = monitoring.render_monitoring(plan, place)
    images = f"{monitoring.PROMETHEUS_IMAGE} and {monitoring.GRAFANA_IMAGE}"
    if dry_run:
        say(f"would run {images} from {folder}")
        return
    _write(folder, texts | opened(plan, deployed.directory))
    say(f"starting {images}")
    # Recreated each time: what they mount was written anew.
    arguments = ("up", "--detach", "--quiet-pull", "--force-recreate", "--remove-orphans")
    _docker().compose(
        monitoring.project(plan.deployment), folder / monitoring.COMPOSE, arguments, timeout_s=UP_TIMEOUT_S
    )
    say(f"prometheus  http://127.0.0.1:{prometheus_port}")
    say(f"grafana     user admin, password in {folder / monitoring.PASSWORD}")
    click.echo(f"http://127.0.0.1:{grafana_port}")


@monitor.command()
@deployment_option
@click.option("--purge", is_flag=True, help="Remove its figures, its settings and the password too.")
def down(deployed: Deployed, purge: bool) -> None:  # noqa: FBT001  click passes flags so
    """Stop both; their figures stay for the next `monitor up`.

    \b
    Example:
      deckard-deploy monitor down
    """
    folder = _folder(deployed)
    say(f"nothing monitors {deployed.name}{' any more' if stop(deployed) else ''}")
    if purge and folder.is_dir():
        remove_folder(folder)
        say(f"removed  {folder}")


@monitor.command()
@plan_options
def render(plan: "LaunchPlan", output: Path | None) -> None:
    """Write the files into the folder that --output names; whoever runs them makes the password.

    \b
    Example:
      deckard-deploy monitor render --profile spark -o monitoring
    """
    if output is None:
        raise BadInputError("these are several files", hint="deckard-deploy monitor render --output FOLDER …")
    place = monitoring.Place(folder=str(output.absolute()), user=_user())
    try:
        for name, text in monitoring.render_monitoring(plan, place).items():
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text, encoding="utf-8")
        for name in monitoring.DATA:
            (output / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{error.filename}: {error.strerror or error}") from error
    say(f"written to {output}; put a password into {output / monitoring.PASSWORD}, with mode 600")


def stop(deployed: Deployed) -> bool:
    """Stop both; False when they were never started. Raises EnvironmentUnfitError."""
    if not _folder(deployed).is_dir():
        return False
    project = monitoring.project(deployed.name)
    _docker().compose(project, None, ("down", "--remove-orphans"), timeout_s=DOWN_TIMEOUT_S)
    return True


def opened(plan: "LaunchPlan", directory: "StateDir") -> dict[str, str]:
    """What Prometheus needs to get through the plan's gateway, if it has to: this tool's own key, and whom to trust."""
    if plan.gateway is None or not monitoring.asks_the_gateway(plan):
        return {}
    files = {monitoring.KEY: Keys(directory.root).own()}
    if plan.gateway.tls:
        files[monitoring.CERTIFICATE] = read_regular(Path(plan.gateway.folder) / CERTIFICATE)
    return files


def _write(folder: Path, texts: dict[str, str]) -> None:
    """All that both mount, for its owner alone; a password that is there already stays."""
    for name in monitoring.DATA:
        private_folder(folder / name)
    for name, text in texts.items():
        private_folder((folder / name).parent)
        write_atomically(folder / name, text)
    password = folder / monitoring.PASSWORD
    if not password.exists():
        private_folder(password.parent)
        write_atomically(password, secrets.token_urlsafe(24))


def _folder(deployed: Deployed) -> Path:
    return deployed.directory.deployment(deployed.name).folder / FOLDER


def _user() -> str:
    return f"{os.getuid()}:{os.getgid()}"


def _docker() -> "DockerEngine":

    return DockerEngine(environment=dict(os.environ), say=echo_command)
