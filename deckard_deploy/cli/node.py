"""`--node`: a verb that runs on another machine."""

import functools
import os
from pathlib import Path
from typing import Any

import click

from deckard_deploy import operations
from deckard_deploy.cli.program import NAME, PROGRAM
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError

# What acts on a machine. A verb that writes files here, or reads this machine's, has no --node.
VERBS = (
    *(
        "up",
        "down",
        "start",
        "switch",
        "status",
        "logs",
        "wait",
        "watch",
        "rollback",
        "chat",
        "connect",
        "top",
    ),
    *("bench", "keys", "plan", "pull", "verify", "doctor", "tune"),
)
_ON_NODE = "DECKARD_NODE"  # set on the node: the option is part of commands to type, and has been followed
_WRITTEN = ("save", "saved", "save_prompts", "output")
_WRITING = ("report",)  # `bench report` writes its page into the working folder
# Verbs whose output names the endpoint.
_ENDPOINT = ("up", "start", "switch", "status", "rollback", "wait", "connect")


def with_node(command: click.Command) -> click.Command:
    """Add --node to a verb and its subcommands."""
    if any(option.name == "node" for option in command.params):
        return command
    option = click.Option(["--node"], metavar="USER@HOST", help="Run on this machine, by ssh.")
    command.params.append(option)
    command.callback = _dispatching(command.callback)
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            if name not in _WRITING:
                with_node(subcommand)
    return command


def _dispatching(callback: Any) -> Any:  # noqa: ANN401  click's callbacks have every signature
    @functools.wraps(callback)
    def here_or_there(*arguments: Any, node: str | None, **options: Any) -> object:
        if node is None or os.environ.get(_ON_NODE):
            return callback(*arguments, **options)
        context = click.get_current_context()
        code = _run_there(node, context)
        return context.exit(code)

    return here_or_there


def _run_there(node: str, context: click.Context) -> int:
    arguments: tuple[str, ...] = tuple(context.find_root().obj or ())
    files: dict[str, bytes] = {}
    for path in (Path("deckard.yaml"), Path("deckard.lock")):
        if path.is_file():
            files[path.name] = path.read_bytes()
    for option, value in _given(context):
        if _names_file(option, value):
            arguments = _carried(Path(value), arguments, files)
    environment = {_ON_NODE: node, "DECKARD_PROGRAM": NAME if " " in PROGRAM else PROGRAM}
    if os.environ.get("NO_COLOR"):
        environment["NO_COLOR"] = os.environ["NO_COLOR"]
    if os.environ.get("HF_TOKEN") and context.command.name in ("up", "pull"):
        environment["HF_TOKEN"] = os.environ["HF_TOKEN"]
    code = operations.node.run(
        node, operations.node.Call(arguments=arguments, environment=environment, files=files), TERMINAL
    )
    if code == 0 and context.command.name in _ENDPOINT:
        TERMINAL.say(f"paths and loopback addresses above are those of {node}")
    return code


def _given(context: click.Context) -> list[tuple[click.Parameter, str]]:
    """Return each option with its value, one pair for each value of an option that is given several times."""
    given = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        values = value if isinstance(value, tuple) else (value,)
        given += [(option, str(one)) for one in values if one is not None]
    return given


def _names_file(option: click.Parameter, value: str) -> bool:
    """Return True if the option names a file of this machine. Raises BadInputError for what cannot be carried."""
    if option.name in _WRITTEN:
        raise BadInputError(f"{option.opts[-1]} writes on the node", hint="leave it out with --node")
    path = Path(value)
    if option.name in ("model", "profile"):
        if path.is_dir() and "/" in value:
            raise BadInputError(
                f"{value} is a folder of this machine",
                hint="copy it to the node, and give its absolute path there",
            )
        return path.suffix in (".yaml", ".yml") and path.is_file()
    return isinstance(option.type, click.Path) and option.name != "state_dir"


def _carried(path: Path, arguments: tuple[str, ...], files: dict[str, bytes]) -> tuple[str, ...]:
    """Add a file to those that are carried, and return the arguments with its path there."""
    if not path.is_file():
        raise BadInputError(f"{path}: no such file on this machine")
    name = str(path)
    if path.is_absolute() or ".." in path.parts:
        name = f"carried/{len(files)}/{path.name}"
    files[name] = path.read_bytes()
    there = []
    for word in arguments:
        before, equals, value = word.partition("=")
        if Path(word) == path:
            there.append(name)
        elif equals and before.startswith("--") and Path(value) == path:
            there.append(f"{before}={name}")
        else:
            there.append(word)
    return tuple(there)
