"""Filters of the templates: every scalar is quoted."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from deckard_deploy.rendering.templates import environment, shell_word, unit_word, yaml_scalar


def undouble_dollars(value: object) -> object:
    if isinstance(value, dict):
        return {key: undouble_dollars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [undouble_dollars(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


# No surrogates, which are not text, and no NUL, which no argument, variable or path can hold.
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_scalar_is_one_line_and_round_trips(text: str) -> None:
    written = yaml_scalar(text)
    assert "\n" not in written
    assert undouble_dollars(yaml.safe_load(written)) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [("a b", '"a b"'), ("100%", '"100%%"'), ('say "x"', '"say \\"x\\""'), ("a\nb", '"a\\nb"')],
)
def test_unit_word_is_quoted_with_doubled_percent(text: str, word: str) -> None:
    assert unit_word(text) == word


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a b", "'a b'"),
        ("~/my models", "~/'my models'"),
        ("~", "'~'"),
        ("$HOME", "'$HOME'"),
        ("plain", "plain"),
    ],
)
def test_shell_word_keeps_home_unquoted(text: str, word: str) -> None:
    assert shell_word(text) == word


def test_undefined_name_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        environment().from_string("{{ missing }}").render()
