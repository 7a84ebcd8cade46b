"""Options that several verbs share."""

import click
import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.cli.options import choice_options, numbers
from deckard_deploy.operations.options import Choice


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0", "fast"])
@pytest.mark.parametrize("words", [["bench", "compare", "a", "b", "--fail-below"], ["top", "--interval"]])
def test_invalid_number_is_refused(words: list[str], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, number]) == 2  # nan would be within every bound, and fail no comparison
    assert "--" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "1,", "1,x", "0", "4097", "00001", "-1", "1.5"])
def test_invalid_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a list of numbers such as 1,2,4"):
        numbers(click.Context(click.Command("x")), click.Option(["--n"]), text)


def test_numbers_are_sorted_once() -> None:
    context, option = click.Context(click.Command("x")), click.Option(["--n"])
    assert numbers(context, option, "4, 1,4,2") == (1, 2, 4)
    assert numbers(context, option, None) is None


def test_named_options_become_settings() -> None:
    seen: list[Choice] = []

    @choice_options
    def verb(*, choice: Choice) -> None:
        seen.append(choice)

    command = click.command()(verb)
    arguments = ["-p", "spark", "--engine", "0.19", "--port", "9000", "--set", "a=1"]
    command.main(arguments, standalone_mode=False)
    settings = ("a=1", 'engine="0.19"', "publish.port=9000")
    written_as = {'engine="0.19"': "--engine 0.19", "publish.port=9000": "--port 9000"}
    assert seen == [Choice(profile="spark", settings=settings, written_as=written_as, detect=True)]
