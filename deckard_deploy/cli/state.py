"""Which deployment on this host a verb is about, and where its state lies."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from deckard_deploy.planning.plan import LaunchPlan
    from deckard_deploy.running.layout import StateDir


def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `state_dir`: None for the user's own data folder."""
    return click.option(
        "--state-dir",
        envvar="DECKARD_HOME",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where weights, caches and deployments lie; default: the user's data folder. [env: DECKARD_HOME]",
    )(command)


def deployment_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `name` and `state_dir`: the deployment it is about, by its name (by default its profile's)."""
    name = click.option(
        "-n", "--name", "-p", "--profile", "name", help="Name of the deployment; not needed when there is only one."
    )
    return name(state_option(command))


def state(root: Path | None) -> "StateDir":
    """The state directory; nothing is made."""
    from deckard_deploy.running.layout import StateDir, default_root  # noqa: PLC0415  not for --help

    return StateDir((root or default_root()).absolute())


def chosen(root: Path | None, name: str | None) -> tuple["StateDir", str]:
    """The state directory and the deployment that is meant. Raises BadInputError when that is not clear."""
    from deckard_deploy.errors import BadInputError  # noqa: PLC0415  not for --help

    directory = state(root)
    known = directory.deployments()
    if name is None and len(known) == 1:
        return directory, known[0]
    if name is None and known:
        raise BadInputError(f"there are several deployments: {', '.join(known)}", hint="--name NAME")
    if name is None or name not in known:
        what = f"no deployment named {name!r}" if name else "nothing was deployed yet"
        raise BadInputError(f"{what}; deployments: {', '.join(known) or 'none'}", hint="deckard-deploy up --profile NAME")
    return directory, name


def running_endpoint(root: Path | None, name: str | None) -> "LaunchPlan":
    """The plan of the deployment's current release. Raises BadInputError when there is none."""
    from deckard_deploy.errors import BadInputError  # noqa: PLC0415  not for --help
    from deckard_deploy.running.releases import Releases  # noqa: PLC0415  same

    directory, found = chosen(root, name)
    release = Releases(directory.deployment(found)).current()
    if release is None:
        raise BadInputError(f"{found} has never been ready", hint=f"deckard-deploy up --profile {found}")
    return release.plan()
