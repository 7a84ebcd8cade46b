"""Options that several verbs share."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deckard_deploy.cli.names import catalog_names, deployment_names, model_names
from deckard_deploy.operations.options import Choice, LockUse, Selection

Command = Callable[..., Any]
# Options that are settings of the deployment, with the key that `--set` would name.
_SETTINGS = {
    "model": "model",
    "drafter": "drafter",
    "engine": "engine",
    "replicas": "replicas",
    "name": "name",
    "image": "image",
    "address": "publish.address",
    "port": "publish.port",
    "expose": "publish.expose",
}
# The longest time between two polls, or for an answer: no clock waits 1e300 seconds.
DAY_S = 86_400


class FiniteRange(click.FloatRange):
    """A range without `nan` and `inf`, which click's FloatRange accepts."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises click.BadParameter."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class ReplicaCount(click.IntRange):
    """A number of replicas, or `all`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the number or "all". Raises click.BadParameter."""
        if value == "all":
            return "all"
        if not str(value).isdecimal():
            self.fail(f"{value!r} is neither a number nor 'all'.", param, ctx)
        return super().convert(value, param, ctx)


def choice_options(command: Command) -> Command:
    """Add the parameter `choice` to a verb, from all options that choose a deployment.

    Without a profile, the one that fits this machine is selected.
    """

    @functools.wraps(command)
    def with_choice(**options: Any) -> object:
        settings = list(options.pop("settings"))
        written_as = {}
        for option, key in _SETTINGS.items():
            value = options.pop(option)
            if value is None:
                continue
            # Text is quoted, so that an engine called 0.19 stays text.
            written = str(value) if option == "port" else json.dumps(value)
            setting = f"{key}={written}"
            settings.append(setting)
            written_as[setting] = f"--{option} {value}"
        choice = Choice(
            profile=options.pop("profile"),
            config=options.pop("config"),
            settings=tuple(settings),
            written_as=written_as,
            compat=options.pop("compat", None),
            detect=True,
        )
        return command(choice=choice, **options)

    for option in reversed(_DEPLOYMENT_OPTIONS):
        with_choice = option(with_choice)
    return with_choice


def short_choice_options(command: Command) -> Command:
    """Add the parameter `choice` to a verb, from --profile, --config and --set alone."""

    @functools.wraps(command)
    def with_choice(**options: Any) -> object:
        chosen = {name: options.pop(name) for name in ("profile", "config", "settings")}
        return command(choice=Choice(**chosen), **options)

    for option in reversed(_SHORT_OPTIONS):
        with_choice = option(with_choice)
    return with_choice


_SHORT_OPTIONS = (
    click.option(
        "-p",
        "--profile",
        metavar="NAME|FILE",
        shell_complete=catalog_names("profiles"),
        help="Check for this profile; default: what concerns every machine.",
    ),
    click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        help="Settings file; default: ./deckard.yaml, if it exists.",
    ),
    click.option(
        "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Override a setting or a vLLM option."
    ),
)


_DEPLOYMENT_OPTIONS = (
    click.option(
        "-p",
        "--profile",
        metavar="NAME|FILE",
        shell_complete=catalog_names("profiles"),
        help="Hardware profile; default: the one of this machine.",
    ),
    click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        help="Settings file; default: ./deckard.yaml, if it exists.",
    ),
    click.option(
        "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Override a setting or a vLLM option."
    ),
    click.option(
        "--model",
        shell_complete=model_names,
        help="Model to serve: a name of `models`, ./FOLDER, FILE.yaml, or OWNER/NAME[@REVISION] on the hub.",
    ),
    click.option(
        "--drafter",
        shell_complete=catalog_names("models", "none"),
        help="Draft model for speculative decoding, or 'none'.",
    ),
    click.option(
        "--engine",
        shell_complete=catalog_names("engines"),
        help="vLLM release and runtime; `engines` lists them.",
    ),
    click.option(
        "--replicas",
        metavar="N|all",
        type=ReplicaCount(min=1),
        help="Equal engines behind one front, each with GPUs of its own.",
    ),
    click.option("--image", help="The engine's image under another name, for example in a mirror."),
    click.option(
        "--name", shell_complete=deployment_names, help="Name of the deployment; default: the profile's."
    ),
    click.option("--address", help="Loopback address to listen on; default: 127.0.0.1."),
    click.option(
        "--expose", metavar="ADDRESS", help="Accept other machines on this address; clients need a key."
    ),
    click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; default: 8000."),
)

# For `plan` and `render`, which compare the launch line of a model card with that of a profile.
compat_option = click.option(
    "--compat", metavar="NAME", help="Use the launch line of a model card unchanged; known: seed."
)


def numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of an option's value such as `1,2,4`, sorted. Raises click.BadParameter."""
    if text is None:
        return None
    found = set()
    for word in text.split(","):
        digits = word.strip()
        if not digits.isdecimal() or len(digits) > 4 or not 0 < int(digits) <= 4096:
            raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,2,4", param=option)
        found.add(int(digits))
    return tuple(sorted(found))


def lock_options(command: Command) -> Command:
    """Add the parameter `lock` to a verb, from --lock-file and --locked."""

    @functools.wraps(command)
    def with_lock(lock_file: Path | None, *, locked: bool, **options: Any) -> object:
        return command(lock=LockUse(lock_file, locked), **options)

    file = click.option(
        "--lock-file", type=click.Path(path_type=Path), help="Default: ./deckard.lock, if it exists."
    )
    locked = click.option("--locked", is_flag=True, help="Refuse what is not in the lock.")
    return file(locked(with_lock))


def locked_option(command: Command) -> Command:
    """Add the parameter `locked` to a verb."""
    return click.option("--locked", is_flag=True, help="Refuse what is not in ./deckard.lock.")(command)


def json_option(command: Command) -> Command:
    """Add the parameter `as_json` to a verb."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def dry_run_option(command: Command) -> Command:
    """Add the parameter `dry_run` to a verb."""
    return click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")(command)


def state_option(command: Command) -> Command:
    """Add the parameter `state_dir` to a verb: None for the user's own data folder."""
    return click.option(
        "--state-dir",
        envvar="DECKARD_HOME",
        type=click.Path(path_type=Path, file_okay=False),
        help="Directory for weights, caches and deployment state. [env: DECKARD_HOME]",
    )(command)


def selection_option(command: Command) -> Command:
    """Add the parameter `selection` to a verb: a deployment by --name or --profile, by default the only one."""

    @functools.wraps(command)
    def with_selection(
        name: str | None, profile: str | None, state_dir: Path | None, **options: Any
    ) -> object:
        return command(selection=Selection(state_dir, name, profile), **options)

    decorated = state_option(with_selection)
    for option in reversed(_SELECTION_OPTIONS):
        decorated = option(decorated)
    return decorated


_SELECTION_OPTIONS = (
    click.option(
        "--name",
        shell_complete=deployment_names,
        help="Name of the deployment; not needed when there is only one.",
    ),
    click.option(
        "-p",
        "--profile",
        metavar="NAME",
        shell_complete=catalog_names("profiles"),
        help="The deployment of this hardware profile.",
    ),
)


output_tokens_option = click.option(
    "--output-tokens",
    type=click.IntRange(2, 1024),
    default=300,
    show_default=True,
    help="Maximum tokens of an answer.",
)
"""For verbs that ask engines in turn, and need the same length of each: `tune`, `bench spec`."""
