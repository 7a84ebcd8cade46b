"""vLLM options as argv tokens."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from deckard_deploy.catalog.option_schema import Option, OptionSchema
from deckard_deploy.planning.arguments import option_lines, serve_arguments

SCHEMA = OptionSchema(
    vllm_version="1.2.3",
    options={
        "eager": Option(kind="flag"),
        "cache": Option(kind="toggle"),
        "length": Option(kind="integer", choices=("auto",)),
        "share": Option(kind="number"),
        "name": Option(kind="text"),
        "config": Option(kind="json"),
        "sizes": Option(kind="list", items="integer"),
    },
    environment=(),
)


@pytest.mark.parametrize(
    ("serve", "tokens"),
    [
        ({}, ()),
        ({"eager": True}, ("--eager",)),
        ({"eager": False}, ()),
        ({"cache": True}, ("--cache",)),
        ({"cache": False}, ("--no-cache",)),
        ({"length": 65536}, ("--length", "65536")),
        ({"length": -1}, ("--length", "-1")),
        ({"length": "auto"}, ("--length", "auto")),
        ({"share": 0.85}, ("--share", "0.85")),
        ({"share": 1}, ("--share", "1")),
        ({"name": "a b; $(c) 'd'\n"}, ("--name", "a b; $(c) 'd'\n")),
        ({"name": ""}, ("--name", "")),
        ({"config": {"b": 1, "a": [True, None, "x"]}}, ("--config", '{"a":[true,null,"x"],"b":1}')),
        ({"config": '{"b": 1, "a": 2}'}, ("--config", '{"b": 1, "a": 2}')),
        ({"sizes": [1, 2, 4]}, ("--sizes", "1", "2", "4")),
        ({"share": 0.5, "eager": True}, ("--share", "0.5", "--eager")),
    ],
)
def test_values_become_tokens(serve: dict[str, JsonValue], tokens: tuple[str, ...]) -> None:
    assert serve_arguments(serve, SCHEMA) == tokens


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_mapping_order_does_not_change_json(mapping: dict[str, JsonValue]) -> None:
    (_, token) = serve_arguments({"config": mapping}, SCHEMA)
    assert json.loads(token) == mapping
    backwards = dict(reversed(list(mapping.items())))
    assert serve_arguments({"config": backwards}, SCHEMA) == ("--config", token)


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_text_is_unchanged(text: str) -> None:
    tokens = serve_arguments({"name": text}, SCHEMA)
    assert tokens == ("--name", text)
    assert tuple(shlex.split(shlex.join(tokens))) == tokens


@given(st.lists(st.from_regex(r"--?[a-z]{1,3}|[a-z0-9 ]{0,3}", fullmatch=True)))
def test_option_lines_keep_all_tokens(tokens: list[str]) -> None:
    lines = option_lines(tuple(tokens))
    assert [token for line in lines for token in line] == tokens
