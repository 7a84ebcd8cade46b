"""`monitor`: Prometheus and Grafana next to a deployment, or next to all of them."""

import os
import secrets
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.deployments import (
    DeploymentRef,
    docker_environment,
    running_plan,
    select_deployment,
)
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.gateway import ROOT
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering import monitoring
from deckard_deploy.running.gateway.files import CERTIFICATE
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import DeploymentDir, StateDir, state_directory
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.files import private_folder, read_regular, remove_folder, write_atomically

UP_TIMEOUT_S = 1800.0  # two images to pull
DOWN_TIMEOUT_S = 120.0
FOLDER = "monitoring"


class Images(NamedTuple):
    """The two images, under other names where a mirror has them."""

    prometheus: str = monitoring.PROMETHEUS_IMAGE
    grafana: str = monitoring.GRAFANA_IMAGE


DEFAULT_IMAGES = Images()


class Stack(NamedTuple):
    """One Prometheus with Grafana: of a deployment, or shared by all of a state directory. folder: what both mount."""

    subject: str
    project: str
    folder: Path
    deployment: DeploymentDir | None = None


def start(  # noqa: PLR0913  one parameter per option
    selection: Selection,
    report: Reporter,
    *,
    prometheus_port: int,
    grafana_port: int,
    images: Images = DEFAULT_IMAGES,
    every: bool = False,
    dry_run: bool = False,
) -> str:
    """Start both with dashboard and alerts, for one deployment or for every one that runs.

    Return Grafana's address. Raises BadInputError, EnvironmentUnfitError.
    """
    stack = _stack(selection, every=every)
    is_group = stack.deployment is not None and stack.deployment.group.exists()
    directory = state_directory(selection.state_dir)
    plans = (
        _running_plans(directory.deployments(), directory, report) if every else _own_plans(selection, report)
    )
    taken = {plan.port for plan in plans}
    if prometheus_port == grafana_port or {prometheus_port, grafana_port} & taken:
        ports = ", ".join(str(port) for port in sorted(taken))
        raise BadInputError(f"the endpoint ({ports}), Prometheus and Grafana need a port each")
    place = monitoring.MonitoringSettings(
        folder=str(stack.folder),
        user=_user() if dry_run else _user_in_docker(stack, plans, report),
        prometheus_port=prometheus_port,
        grafana_port=grafana_port,
        prometheus_image=images.prometheus,
        grafana_image=images.grafana,
        shared=every or is_group,
        project=stack.project,
    )
    texts = monitoring.render_monitoring(plans, place)
    address = f"http://127.0.0.1:{grafana_port}"
    names = f"{images.prometheus} and {images.grafana}"
    if dry_run:
        report.say(f"would run {names} from {stack.folder}")
        return address
    for plan in plans:
        texts |= gateway_credentials(plan, directory)
    _write(stack.folder, texts)
    report.say(f"starting {names} for {', '.join(plan.deployment for plan in plans)}")
    # Recreated each time, because the files that both mount were written again.
    arguments = ("up", "--detach", "--quiet-pull", "--force-recreate", "--remove-orphans")
    _compose(stack, stack.folder / monitoring.COMPOSE_FILE, arguments, report, timeout_s=UP_TIMEOUT_S)
    report.say(f"prometheus  http://127.0.0.1:{prometheus_port}")
    report.say(f"grafana     user admin, password in {stack.folder / monitoring.PASSWORD_FILE}")
    return address


def _stack(selection: Selection, *, every: bool) -> Stack:
    """Return the stack of the selected deployment or of all. Raises BadInputError."""
    if not every:
        return _own_stack(select_deployment(selection))
    if selection.name is not None or selection.profile is not None:
        raise BadInputError(
            "--all is every deployment of this state directory, and no other is named with it"
        )
    root = state_directory(selection.state_dir).root
    return Stack("these deployments", monitoring.SHARED_PROJECT, root / FOLDER)


def _own_stack(deployment: DeploymentRef) -> Stack:
    directory = deployment.directory.deployment(deployment.name)
    project = monitoring.project_name(deployment.name)
    return Stack(deployment.name, project, monitoring_folder(deployment), directory)


def _own_plans(selection: Selection, report: Reporter) -> list[LaunchPlan]:
    """Return the plan that runs; of a group those of its replicas and of its front. Raises BadInputError."""
    deployment = select_deployment(selection)
    if not deployment.directory.deployment(deployment.name).group.exists():
        return [running_plan(deployment, report)]
    return _running_plans([deployment.name], deployment.directory, report)


def _running_plans(names: list[str], directory: StateDir, report: Reporter) -> list[LaunchPlan]:
    """Return the plans of these deployments and of their replicas that run. Raises BadInputError when none does."""
    plans = []
    for name in directory.with_replicas():
        if name not in names and directory.front_of(name) not in names:
            continue
        try:
            plans.append(running_plan(DeploymentRef(directory, name), report))
        except BadInputError as error:
            report.say(f"left out  {error.message}")
    if not plans:
        raise BadInputError("no deployment runs", hint="deckard-deploy up")
    return plans


def stop_monitoring(deployment: DeploymentRef, report: Reporter) -> bool:
    """Stop both. Return False when they were never started. Raises EnvironmentUnfitError."""
    return _stop(_own_stack(deployment), report)


def _stop(stack: Stack, report: Reporter) -> bool:
    if not stack.folder.is_dir():
        return False
    _compose(stack, None, ("down", "--remove-orphans"), report, timeout_s=DOWN_TIMEOUT_S)
    return True


def explain_stop(selection: Selection, report: Reporter, *, every: bool, purge: bool) -> None:
    """Report what `stop` and `purge` would do; do nothing."""
    stack = _stack(selection, every=every)
    if not stack.folder.is_dir():
        report.say(f"dry run: would do nothing: nothing monitors {stack.subject}")
        return
    what = f", and remove {stack.folder} with its figures" if purge else ""
    report.say(f"dry run: would stop the monitoring of {stack.subject}{what}")


def stop(selection: Selection, report: Reporter, *, every: bool = False) -> tuple[str, bool]:
    """Stop both.

    Return what they monitored, and False if they were never started. Raises EnvironmentUnfitError.
    """
    stack = _stack(selection, every=every)
    return stack.subject, _stop(stack, report)


def purge(selection: Selection, *, every: bool = False) -> Path | None:
    """Remove the figures, settings and password. Return the folder that was removed, if there was one."""
    folder = _stack(selection, every=every).folder
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
        for name, text in monitoring.render_monitoring([plan], place).items():
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
        files[monitoring.certificate_file(plan)] = read_regular(Path(plan.gateway.folder) / CERTIFICATE)
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


def _user_in_docker(stack: Stack, plans: list[LaunchPlan], report: Reporter) -> str:
    """Return `uid:gid` of both services, which read the caller's private files.

    Raises EnvironmentUnfitError for an engine that cannot run them, by its name.
    """
    from deckard_deploy.running.docker.client import DockerClient  # noqa: PLC0415  the docker SDK

    docker = DockerClient(environment=_environment(stack), say=report.command)
    docker.require_supported()
    if not docker.is_rootless():
        return _user()
    if len(plans) > 1 or stack.deployment is None or monitoring.engine_network(plans[0]) is None:
        raise EnvironmentUnfitError(
            "a rootless docker has no access to this host's network: Prometheus and Grafana would be out of reach",
            hint="for one deployment in docker: deckard-deploy monitor up --name NAME",
        )
    return ROOT


def _environment(stack: Stack) -> dict[str, str]:
    """Return the environment that selects the docker daemon of the deployment, whichever the caller selects now."""
    environment = dict(os.environ)
    if stack.deployment is None:
        return environment
    return docker_environment(environment, Releases(stack.deployment))


def _compose(
    stack: Stack, file: Path | None, arguments: tuple[str, ...], report: Reporter, *, timeout_s: float
) -> None:
    from deckard_deploy.running.docker.client import DockerClient  # noqa: PLC0415  the docker SDK

    docker = DockerClient(environment=_environment(stack), say=report.command)
    docker.compose(stack.project, file, arguments, timeout_s=timeout_s)
