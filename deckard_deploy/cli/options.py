"""Options that several verbs share, and what they resolve to."""

import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deckard_deploy.catalog import library, listing, overrides
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.cli.host_profile import profile_of_this_host
from deckard_deploy.errors import BadInputError

F = TypeVar("F", bound=Callable[..., Any])

_CHOICES = ("model", "drafter", "engine", "name", "address", "port", "expose", "image")
_DEFAULT_FILE = Path("deckard.yaml")


# The longest that a verb waits between two looks, or for an answer: no clock waits 1e300 seconds.
DAY_S = 86_400


class FiniteRange(click.FloatRange):
    """click's own lets `nan` into every range, and `inf` into one that is open above."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401  click's signature
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def deployment_options(
    command: Callable[..., Any], *, default_profile: Callable[[], str] | None = None
) -> Callable[..., Any]:
    """Give a verb `resolved`: what --profile, --config, --set and the named options ask for.

    default_profile: asked when no profile is named; without it that is an error.
    """

    @functools.wraps(command)
    def with_resolved(**options: Any) -> Any:  # noqa: ANN401  click passes whatever the options hold
        named = {key: options.pop(key) for key in _CHOICES}
        resolved = resolve_choice(
            profile=options.pop("profile"),
            config=options.pop("config"),
            settings=(*options.pop("settings"), *_as_settings(named)),
            compat=options.pop("compat"),
            default_profile=default_profile,
        )
        return command(resolved=resolved, **options)

    for option in reversed(_DEPLOYMENT_OPTIONS):
        with_resolved = option(with_resolved)
    return with_resolved


_DEPLOYMENT_OPTIONS = (
    click.option("-p", "--profile", metavar="NAME|FILE", help="Hardware profile; `profiles` lists them."),
    click.option(
        "-c", "--config", type=click.Path(path_type=Path), help="Default: ./deckard.yaml, if there is one."
    ),
    click.option(
        "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Override a setting or a vLLM option."
    ),
    click.option("--model", help="Model to serve; `models` lists them."),
    click.option("--drafter", help="Draft model for speculative decoding, or 'none'."),
    click.option("--engine", help="vLLM release and runtime; `engines` lists them."),
    click.option("--image", help="The engine's image under another name, for example in a mirror."),
    click.option("--name", help="Name of the deployment; default: the profile's."),
    click.option("--address", help="Loopback address to listen on; default: 127.0.0.1."),
    click.option(
        "--expose", metavar="ADDRESS", help="Let other machines in, on this address; clients need a key."
    ),
    click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; default: 8000."),
    click.option("--compat", metavar="NAME", help="Keep somebody's own launch line; known: seed."),
)


def _as_settings(named: dict[str, Any]) -> tuple[str, ...]:
    keys = {key: f"publish.{key}" for key in ("address", "port", "expose")}
    # Quoted, so that an engine called 0.19 stays text.
    return tuple(
        f"{keys.get(key, key)}={value}" if key == "port" else f"{keys.get(key, key)}={json.dumps(value)}"
        for key, value in named.items()
        if value is not None
    )


def host_deployment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a verb that is about this machine: a profile that is not named is the one made for it."""
    return deployment_options(command, default_profile=profile_of_this_host)


def resolve_choice(
    *,
    profile: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    compat: str | None,
    default_profile: Callable[[], str] | None = None,
) -> "Resolved":
    """The catalog's and the user's settings as one choice. Raises BadInputError, and what `default_profile` raises."""
    # A dangling link is an error, not another deployment.
    if config is None and os.path.lexists(_DEFAULT_FILE):
        config = _DEFAULT_FILE
    deployment = overrides.with_settings(overrides.read_deployment(config), settings)
    compatibility = library.compatibility(compat) if compat else None
    name = profile or deployment.profile or (compatibility.profile if compatibility else None)
    if name is None and default_profile:
        name = default_profile()
    if name is None:
        known = ", ".join(listing.names("profiles"))
        raise BadInputError(
            f"no hardware profile was named; known: {known}", hint="deckard-deploy … --profile NAME"
        )
    is_file = "/" in name or name.endswith((".yaml", ".yml"))
    spec = library.profile_from_file(Path(name)) if is_file else library.profile(name)
    return resolve(deployment, profile=spec, compatibility=compatibility)
