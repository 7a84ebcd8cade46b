"""Which deployment on this host a verb is about, and where its state lies."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.running.layout import StateDir, default_root
from deckard_deploy.running.releases import Releases


class Deployed(NamedTuple):
    """A deployment of this host."""

    directory: "StateDir"
    name: str


def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `state_dir`: None for the user's own data folder."""
    return click.option(
        "--state-dir",
        envvar="DECKARD_HOME",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where weights, caches and deployments lie; default: the user's data folder. [env: DECKARD_HOME]",
    )(command)


def deployment_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `deployed`: the deployment that --name (or its profile's name) means, or the only one there is."""

    @functools.wraps(command)
    def with_deployment(name: str | None, state_dir: Path | None, **options: Any) -> Any:  # noqa: ANN401  click's own
        return command(deployed=chosen(state_dir, name), **options)

    name = click.option(
        "-n",
        "--name",
        "-p",
        "--profile",
        "name",
        help="Name of the deployment; not needed when there is only one.",
    )
    return name(state_option(with_deployment))


def state(root: Path | None) -> "StateDir":
    """The state directory; nothing is made."""
    if root is None:
        with knowing_home():
            root = default_root()
    # The folder itself may be a link, to a bigger disk. Not Path.resolve: RuntimeError for links in a circle.
    return StateDir(Path(os.path.realpath(root)))


@contextmanager
def knowing_home() -> Iterator[None]:
    """Raises EnvironmentUnfitError when the user has no home, as one that a container only has the number of."""
    try:
        yield
    except RuntimeError as error:  # pathlib's and platformdirs'
        raise EnvironmentUnfitError(
            f"HOME is not set, and user {os.getuid()} has no home", hint="export HOME=/a/folder/of/yours"
        ) from error


def chosen(root: Path | None, name: str | None) -> "Deployed":
    """The deployment that is meant. Raises BadInputError when that is not clear."""
    directory = state(root)
    known = directory.deployments()
    if name is None and len(known) == 1:
        name = known[0]
    if name is None and known:
        raise BadInputError(f"there are several deployments: {', '.join(known)}", hint="--name NAME")
    if name is None or name not in known:
        what = f"no deployment named {name[:80]!r}" if name else "nothing was deployed yet"
        raise BadInputError(
            f"{what}; known: {', '.join(known) or 'none'}", hint="deckard-deploy up --profile NAME"
        )
    return Deployed(directory, name)


def start_line(deployed: "Deployed") -> str:
    """What starts it: a deployment has its profile's name, or one of its own."""
    name = profile = deployed.name
    with suppress(IntegrityError):
        for release in Releases(deployed.directory.deployment(name)).all()[:1]:
            profile = release.plan().profile
    return f"deckard-deploy up --profile {profile}{'' if name == profile else f' --name {name}'}"
