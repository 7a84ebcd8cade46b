"""`service`: a systemd unit that keeps a deployment answering, also after a reboot; and what a reboot does without."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.deployments import select_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.systemd import render_unit, unit_name
from deckard_deploy.running import service
from deckard_deploy.running.releases import Releases

# The settings by which docker's command line finds its daemon, and a user's own files.
_INHERITED = (
    "PATH",
    "HOME",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
)
_ENVIRONMENT_OF_UNIT = ("PATH", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")


class Installed(NamedTuple):
    """The unit that was installed, and the deployment that it keeps."""

    file: Path
    name: str


def install(
    selection: Selection, report: Reporter, *, program: tuple[str, ...], dry_run: bool = False
) -> Installed:
    """Write, enable and start the unit of a deployment, and see it run.

    program: the command line of this tool. Raises BadInputError without a current release, EnvironmentUnfitError
    without systemd, or when the unit does not run.
    """
    deployment = select_deployment(selection)
    current = Releases(deployment.directory.deployment(deployment.name)).current()
    if current is None:
        raise BadInputError(
            f"{deployment.name} was never proven ready, so the unit would have nothing to start",
            hint="deckard-deploy up",
        )
    unit = service.service_of(unit_name(deployment.name), os.environ)
    text = render_unit(
        current.load().plan,
        program=_usable(program),
        variables=_variables(deployment.directory.root),
        system=unit.system,
    )
    if dry_run:
        report.say(f"would    write, enable and start {unit.file}")
        return Installed(unit.file, deployment.name)
    environment = _inherited()
    service.install(unit, text, environment=environment, say=report.command)
    report.say(f"service  {unit.file} is enabled, and runs")
    if not unit.system and not service.lingers():
        service.enable_lingering(environment=environment, say=report.command)
    report.say(boot_sentence(current.load().plan))
    return Installed(unit.file, deployment.name)


def remove(selection: Selection, report: Reporter, *, dry_run: bool = False) -> None:
    """Stop, disable and remove the unit of a deployment, which itself runs on. Raises EnvironmentUnfitError."""
    name = selection.name or select_deployment(selection).name
    unit = service.service_of(unit_name(name), os.environ)
    if dry_run:
        report.say(f"would    remove {unit.file}" if unit.file.exists() else f"{unit.file} does not exist")
        return
    if service.remove(unit, environment=_inherited(), say=report.command):
        report.say(f"removed  {unit.file}; {name} is not watched any more, and runs on if it ran")
    else:
        report.say(f"{unit.file} does not exist")


def boot_sentence(plan: LaunchPlan) -> str:
    """Return a sentence about a reboot: whether the deployment comes back, or how to make it."""
    unit = service.service_of(unit_name(plan.deployment), os.environ)
    if unit.enabled and (unit.system or service.lingers()):
        return f"reboot   {unit.name}.service starts it with the machine"
    if unit.enabled:
        return (
            f"reboot   {unit.name}.service starts it at {service.user_name()}'s next login; with the machine: "
            "loginctl enable-linger"
        )
    if service.has_systemd():
        command = f"deckard-deploy service install --name {plan.deployment}"
        return f"reboot   it does not start by itself; to change that: {command}"
    return (
        "reboot   it does not start by itself, and this machine has no systemd: let the boot run "
        f"deckard-deploy watch --name {plan.deployment}"
    )


def _inherited() -> dict[str, str]:
    found = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # `sudo` and ssh without a session do not set it, and systemctl --user needs it.
    found.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    return found


def _variables(state_dir: Path) -> tuple[str, ...]:
    """Return the environment of the unit: the same state directory, programs and docker as now."""
    found = [f"DECKARD_HOME={state_dir.absolute()}"]
    if os.getuid() == 0:
        found.append("HOME=/root")  # the machine's manager sets none
    found += [f"{name}={os.environ[name]}" for name in _ENVIRONMENT_OF_UNIT if name in os.environ]
    return tuple(found)


def _usable(program: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line. Raises for a program that systemd cannot start, or that is not there."""
    # systemd takes no others there, however they are quoted.
    if not re.fullmatch(r"/[A-Za-z0-9._/+-]+", program[0]):
        raise BadInputError(
            f"{program[0]!r}: systemd starts a program by a path of letters, digits and . _ / + - only",
            hint="--program /usr/local/bin/deckard-deploy, a link to it",
        )
    if not os.access(program[0], os.X_OK):
        raise EnvironmentUnfitError(f"{program[0]} is no program", hint="--program PATH")
    return program
