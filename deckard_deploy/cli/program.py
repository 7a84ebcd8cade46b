"""The commands that texts suggest, as the user can type them: the program's own name, the options given again.

Texts write `deckard-deploy VERB …`. A path, an image or a package of that name is followed by no verb and stays.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

NAME = "deckard-deploy"
VARIABLE = "_DECKARD_DEPLOY_COMPLETE"  # a shell's question about a command line; completion.py
# The options that say which deployment a command is about. A suggested command gets those that it accepts.
_KEPT = [
    "node",
    "profile",
    "config",
    "settings",
    "model",
    "drafter",
    "engine",
    "image",
    "name",
    "address",
    "expose",
    "port",
    "compat",
    "state_dir",
    "lock_file",
    "locked",
    "root",
    "models_dir",
    "set_name",
    "package",
    "wheel",
    "release",
]
# A command ends before the sentence goes on.
_COMMAND = re.compile(rf"(?<![^\s`(]){NAME} (?P<verb>[a-z0-9]+)(?P<rest>.*?)(?=[`;)\n]|, |: |$)")
_VERB_CONTEXT = "deckard_deploy.verb_context"


def called_program() -> str:
    """Return the program as it was called, quoted for a shell.

    The launcher of a checkout passes its own name. A console script outside of PATH is named by its path.
    """
    launcher = os.environ.get("DECKARD_PROGRAM")
    if launcher:
        return shlex.quote(launcher)
    called = sys.argv[0]
    if os.path.basename(called) == "__main__.py":  # noqa: PTH119  a path of the command line stays as it was typed
        return f"{shlex.quote(sys.executable)} -m deckard_deploy"
    found = shutil.which(NAME)
    if os.path.basename(called) != NAME or (found and os.path.samefile(found, called)):  # noqa: PTH119, PTH121
        return NAME
    return shlex.quote(called)


def installed_program() -> tuple[str, ...]:
    """Return the command line that starts this very program from anywhere, the first word an absolute path."""
    called = os.environ.get("DECKARD_PROGRAM") or sys.argv[0]
    if os.path.basename(called) == "__main__.py":  # noqa: PTH119
        return (sys.executable, "-m", "deckard_deploy")
    return (os.path.abspath(shutil.which(called) or called),)  # noqa: PTH100  a link may outlive what it leads to


PROGRAM = called_program()


class VerbFormatter(click.HelpFormatter):
    """Help whose examples name the program that was called."""

    def getvalue(self) -> str:
        """Return the help."""
        return re.sub(rf"(?<![^\s`(]){NAME} (?=[a-z])", lambda _: f"{PROGRAM} ", super().getvalue())


class VerbContext(click.Context):
    """A context that the root context of its command line knows: the last one is that of the verb."""

    formatter_class = VerbFormatter

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.meta[_VERB_CONTEXT] = self


def with_verb_contexts(command: click.Command) -> click.Command:
    """Make a command and its subcommands use VerbContext, and list each with its whole first line of help."""
    command.context_class = VerbContext
    command.short_help = (command.help or "").partition("\n")[0]
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            with_verb_contexts(subcommand)
    return command


def typed(text: str, root: click.Context | None = None) -> str:
    """Return the text with each command as the user can type it.

    root: the root context of a command line that has ended; default: the one that runs.
    """
    if NAME not in text:
        return text
    current = root or click.get_current_context(silent=True)
    if current is None:
        return text
    given: click.Context = current.meta.get(_VERB_CONTEXT, current)
    return _COMMAND.sub(lambda found: _as_typed(found, given), text)


def _as_typed(found: re.Match[str], given: click.Context) -> str:
    command = _command_of(given.find_root(), found["verb"])
    if command is None:
        return found[0]
    rest, words = found["rest"], [PROGRAM, found["verb"]]
    if isinstance(command, click.Group):
        subcommand, _, behind = rest.lstrip().partition(" ")
        if subcommand in command.commands:
            command = command.commands[subcommand]
            words.append(subcommand)
            rest = f" {behind}" if behind else ""
    return " ".join([*words, *_options_again(given, command, rest)]) + rest


def _command_of(root: click.Context, verb: str) -> click.Command | None:
    group = root.command
    return group.get_command(root, verb) if isinstance(group, click.Group) else None


def _options_again(given: click.Context, command: click.Command, suggested: str) -> list[str]:
    """Return the given options that the command accepts, and that the suggestion does not have itself."""
    accepted = {(option.name, tuple(option.opts)) for option in command.params}
    kept = _kept_with(given, suggested.split(), takes_settings="settings" in {name for name, _ in accepted})
    words = []
    for option in given.command.params:
        if (
            isinstance(option, click.Option)
            and option.name in kept
            and (option.name, tuple(option.opts)) in accepted
        ):
            words += _option_again(given, option, suggested.split())
    return words


def _kept_with(given: click.Context, suggested: Sequence[str], *, takes_settings: bool) -> Sequence[str]:
    """Return the names of the options that may be given again next to the suggested words."""
    profile = given.params.get("profile")
    if profile and "--profile" in suggested and profile not in suggested:
        return ("node", "state_dir")  # the settings are for another machine
    if "--name" in suggested and not takes_settings:
        return [name for name in _KEPT if name != "profile"]
    return _KEPT


def _option_again(given: click.Context, option: click.Parameter, suggested: Sequence[str]) -> list[str]:
    name = option.name or ""
    if given.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        return []
    value, long_name = given.params.get(name), option.opts[-1]
    if name == "settings":
        settings = [text for text in value or () if not _sets_again(text, suggested)]
        return [word for text in settings for word in (long_name, shlex.quote(text))]
    if value is None or any(word in option.opts for word in suggested):
        return []
    return [long_name] if value is True else [long_name, shlex.quote(str(value))]


def _sets_again(setting: str, suggested: Sequence[str]) -> bool:
    """Return True if the suggested words set the same key."""
    key = _key(setting)
    return any(_key(word) == key for word in suggested if "=" in word or word.startswith("--"))


def _key(setting: str) -> str:
    return setting.partition("=")[0].removeprefix("--").replace("_", "-")
