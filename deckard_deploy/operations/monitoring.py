"""`monitor`: Prometheus and Grafana next to a deployment."""

import os
import secrets
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.deployments import DeploymentRef, running_plan, select_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering import monitoring
from deckard_deploy.running.gateway.files import CERTIFICATE
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.files import private_folder, read_regular, remove_folder, write_atomically

UP_TIMEOUT_S = 1800.0  # two images to pull
DOWN_TIMEOUT_S = 120.0
FOLDER = "monitoring"


class Images(NamedTuple):
    """The two images, under other names where a mirror has them."""

    prometheus: str = monitoring.PROMETHEUS_IMAGE
    grafana: str = monitoring.GRAFANA_IMAGE


DEFAULT_IMAGES = Images()


def start(  # noqa: PLR0913  one parameter per option
    selection: Selection,
    report: Reporter,
    *,
    prometheus_port: int,
    grafana_port: int,
    images: Images = DEFAULT_IMAGES,
    dry_run: bool = False,
) -> str:
    """Start both with dashboard and alerts.

    Return Grafana's address. Raises BadInputError, EnvironmentUnfitError.
    """
    deployment = select_deployment(selection)
    plan = running_plan(deployment, report)
    folder = monitoring_folder(deployment)
    if len({plan.port, prometheus_port, grafana_port}) < 3:
        raise BadInputError(f"the endpoint ({plan.port}), Prometheus and Grafana need a port each")
    place = monitoring.MonitoringSettings(
        folder=str(folder),
        user=_user(),
        prometheus_port=prometheus_port,
        grafana_port=grafana_port,
        prometheus_image=images.prometheus,
        grafana_image=images.grafana,
    )
    texts = monitoring.render_monitoring(plan, place)
    address = f"http://127.0.0.1:{grafana_port}"
    names = f"{images.prometheus} and {images.grafana}"
    if dry_run:
        report.say(f"would run {names} from {folder}")
        return address
    _write(folder, texts | gateway_credentials(plan, deployment.directory))
    report.say(f"starting {names}")
    # Recreated each time, because the files that both mount were written again.
    arguments = ("up", "--detach", "--quiet-pull", "--force-recreate", "--remove-orphans")
    _compose(plan.deployment, folder / monitoring.COMPOSE_FILE, arguments, report, timeout_s=UP_TIMEOUT_S)
    report.say(f"prometheus  http://127.0.0.1:{prometheus_port}")
    report.say(f"grafana     user admin, password in {folder / monitoring.PASSWORD_FILE}")
    return address


def stop_monitoring(deployment: DeploymentRef, report: Reporter) -> bool:
    """Stop both. Return False when they were never started. Raises EnvironmentUnfitError."""
    if not monitoring_folder(deployment).is_dir():
        return False
    arguments = ("down", "--remove-orphans")
    _compose(deployment.name, None, arguments, report, timeout_s=DOWN_TIMEOUT_S)
    return True


def stop(selection: Selection, report: Reporter) -> tuple[str, bool]:
    """Stop both.

    Return the deployment's name, and False if they were never started. Raises EnvironmentUnfitError.
    """
    deployment = select_deployment(selection)
    return deployment.name, stop_monitoring(deployment, report)


def purge(selection: Selection) -> Path | None:
    """Remove the figures, settings and password. Return the folder that was removed, if there was one."""
    deployment = select_deployment(selection)
    folder = monitoring_folder(deployment)
    if not folder.is_dir():
        return None
    remove_folder(folder)
    return folder


def write_files(plan: LaunchPlan, output: Path, images: Images = DEFAULT_IMAGES) -> Path:
    """Write the files for another host into a folder. Return the path at which the password belongs.

    Raises BadInputError when the folder cannot be written.
    """
    place = monitoring.MonitoringSettings(
        folder=str(output.absolute()),
        user=_user(),
        prometheus_image=images.prometheus,
        grafana_image=images.grafana,
    )
    try:
        for name, text in monitoring.render_monitoring(plan, place).items():
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text, encoding="utf-8")
        for name in monitoring.DATA_FOLDERS:
            (output / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{error.filename}: {error.strerror or error}") from error
    return output / monitoring.PASSWORD_FILE


def gateway_credentials(plan: LaunchPlan, directory: StateDir) -> dict[str, str]:
    """Return this tool's own key and certificate, as files for Prometheus to pass the plan's gateway."""
    if plan.gateway is None:
        return {}
    files = {monitoring.KEY_FILE: Keys(directory.root).own()}
    if plan.gateway.tls:
        files[monitoring.CERTIFICATE_FILE] = read_regular(Path(plan.gateway.folder) / CERTIFICATE)
    return files


def monitoring_folder(deployment: DeploymentRef) -> Path:
    """Return the folder that both mount."""
    return deployment.directory.deployment(deployment.name).folder / FOLDER


def _write(folder: Path, texts: dict[str, str]) -> None:
    """Write the files that both mount, for their owner alone. A password that exists stays."""
    for name in monitoring.DATA_FOLDERS:
        private_folder(folder / name)
    for name, text in texts.items():
        private_folder((folder / name).parent)
        write_atomically(folder / name, text)
    password = folder / monitoring.PASSWORD_FILE
    if not password.exists():
        private_folder(password.parent)
        write_atomically(password, secrets.token_urlsafe(24))


def _user() -> str:
    return f"{os.getuid()}:{os.getgid()}"


def _compose(
    deployment: str, file: Path | None, arguments: tuple[str, ...], report: Reporter, *, timeout_s: float
) -> None:
    from deckard_deploy.running.docker.client import DockerClient  # noqa: PLC0415  the docker SDK

    engine = DockerClient(environment=dict(os.environ), say=report.command)
    engine.compose(monitoring.project_name(deployment), file, arguments, timeout_s=timeout_s)
