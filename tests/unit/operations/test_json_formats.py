"""Every `--json` has a documented format; other tests check real output against it (tests/support/json_output.py)."""

from collections.abc import Iterator
from typing import Literal

import click
import pytest
from pydantic import ValidationError

from deckard_deploy.catalog import listing as catalog_listing
from deckard_deploy.cli.main import cli, run
from deckard_deploy.operations.json_formats import FORMATS
from tests.support.json_output import checked

NOT_OURS = {"chat"}  # the response of the OpenAI API


def with_json(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if any("--json" in parameter.opts for parameter in command.params):
        yield " ".join(path)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield from with_json(subcommand, (*path, name))


def test_every_json_has_a_format():
    assert {each.command for each in FORMATS} == set(with_json(cli)) - NOT_OURS


@pytest.mark.parametrize(
    "output",
    [
        '{"deployment": "a", "condition": "ready", "colour": "red"}',
        '{"deployment": "a", "condition": "fine"}',
        '{"condition": "ready"}',
    ],
)
def test_other_output_is_refused(output: str):
    with pytest.raises(ValidationError):
        checked("status", output)


@pytest.mark.parametrize("kind", ["profiles", "models", "engines"])
def test_entry_of_catalog_has_its_format(
    kind: Literal["profiles", "models", "engines"], capsys: pytest.CaptureFixture[str]
):
    for name in catalog_listing.names(kind):
        assert run([kind, "show", name, "--json"]) == 0
        assert checked(f"{kind} show", capsys.readouterr().out)["name"] == name
