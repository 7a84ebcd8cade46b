"""The commands that the README and the pages show: each is one that this version accepts."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deckard_deploy.cli.main import cli

REPO = Path(__file__).parents[3]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
# Generated pages, and a page of a loop in a shell.
OTHERS = ("cli.md", "troubleshooting.md", "json.md", "api.md", "architecture.md")
PROGRAMS = ("deckard-deploy", "./deckard")


def shown_commands() -> Iterator[tuple[str, str]]:
    """Yield the place of each shown call of the program, and its arguments."""
    for page in PAGES:
        if page.name in OTHERS:
            continue
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"```(?:sh|console)\n(.+?)```", text, re.DOTALL):
            for line in block[1].replace("\\\n", " ").splitlines():
                for call in calls_in(line.removeprefix("$ ")):
                    yield page.name, call


def calls_in(line: str) -> Iterator[str]:
    """Yield the arguments of each call of the program in a line of a shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        is_called = before in ("", "|", "&&", ";", "<(", "(") or "=" in before
        if word in PROGRAMS and is_called:
            arguments = []
            for argument in words[number + 1 :]:
                if set(argument) <= set("|&;<>()"):
                    break
                arguments.append(argument)
            yield shlex.join(arguments)


def accept(arguments: list[str]) -> None:
    """Parse arguments as the program does, and run nothing. Raises click.ClickException."""
    command: click.Command = cli
    parent = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=command.name)
        found = command.get_command(context, arguments[0]) if arguments else None
        if found is None:
            if arguments and not arguments[0].startswith("-") and not command.invoke_without_command:
                raise click.UsageError(f"no command {arguments[0]}")
            command.make_context(command.name or "", list(arguments), parent=parent, resilient_parsing=True)
            return
        command, parent, arguments = found, context, arguments[1:]
    _, rest, _ = command.make_parser(click.Context(command, parent=parent)).parse_args(list(arguments))
    if rest:
        raise click.UsageError(f"unexpected {rest}")


COMMANDS = sorted(set(shown_commands()))


def test_pages_show_commands() -> None:
    assert len(COMMANDS) > 80


@pytest.mark.parametrize("arguments", [pytest.param(call, id=f"{page}: {call}") for page, call in COMMANDS])
def test_shown_command_is_accepted(arguments: str) -> None:
    accept(shlex.split(arguments))


@pytest.mark.parametrize("arguments", ["upp", "up --profil spark", "keys ad alice", "up spark extra"])
def test_wrong_command_is_not_accepted(arguments: str) -> None:
    with pytest.raises(click.ClickException):
        accept(shlex.split(arguments))
