"""The accepted YAML, and the one-line errors for all other YAML."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deckard_deploy.catalog import strict_yaml
from deckard_deploy.errors import BadInputError
from deckard_deploy.system.text import escaped

DEEP_LIST = "a: " + "[" * 30 + "]" * 30
DEEP_MAPPING = "a: " + "{b: " * 30 + "1" + "}" * 30


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        pytest.param("a: 1\nb: 2\na: 3", 3, "a: key given twice (first on line 1)", id="duplicate"),
        pytest.param(
            "s:\n  a: 1\n  a: 1", 3, "s.a: key given twice (first on line 2)", id="duplicate-nested"
        ),
        pytest.param('on: 1\n"on": 2', 2, "on: key given twice", id="duplicate-quoted"),
        pytest.param('"a\\nb": 1\n"a\\nb": 1', 2, "a\\nb: key given twice", id="duplicate-newline"),
        pytest.param("a: &x 1", 1, "anchors and aliases", id="anchor"),
        pytest.param("a: 1\nb: *x", 2, "anchors and aliases", id="alias"),
        pytest.param("a: &x [*x]", 1, "anchors and aliases", id="alias-cycle"),
        pytest.param("<<: {a: 1}", 1, "only plain text can be a key", id="merge"),
        pytest.param("? [1]\n: 2", 1, "only plain text can be a key", id="list-as-key"),
        pytest.param("a: !!int 3", 1, "tag 'tag:yaml.org,2002:int'", id="tag-core"),
        pytest.param("a: !!python/object/apply:os.system [id]", 1, "tag 'tag:yaml.org", id="tag-python"),
        pytest.param("a: !local 3", 1, "tag '!local'", id="tag-local"),
        pytest.param("a: on", 1, "a: 'on' would be read as bool", id="on"),
        pytest.param("a: yes", 1, "a: 'yes' would be read as bool", id="yes"),
        pytest.param("a: No", 1, "a: 'No' would be read as bool", id="No"),
        pytest.param("a: True", 1, "a: 'True' would be read as bool", id="True"),
        pytest.param("a: Null", 1, "a: 'Null' would be read as null", id="Null"),
        pytest.param("a: 22:22", 1, "a: '22:22' would be read as int", id="sexagesimal"),
        pytest.param("a: 0x1f", 1, "a: '0x1f' would be read as int", id="hexadecimal"),
        pytest.param("a: 010", 1, "a: '010' would be read as int", id="octal"),
        pytest.param("a: 0b11", 1, "a: '0b11' would be read as int", id="binary"),
        pytest.param("a: 1_000", 1, "a: '1_000' would be read as int", id="underscores"),
        pytest.param("a: " + "9" * 5000, 1, "would be read as int", id="thousands-of-digits"),
        pytest.param("a: 1.", 1, "a: '1.' would be read as float", id="bare-point"),
        pytest.param("a: .inf", 1, "a: '.inf' would be read as float", id="inf"),
        pytest.param("a: .NaN", 1, "a: '.NaN' would be read as float", id="nan"),
        pytest.param("a: 2026-01-01", 1, "a: '2026-01-01' would be read as timestamp", id="date"),
        pytest.param("a: =", 1, "a: '=' would be read as value", id="equals"),
        pytest.param("s:\n  - 1\n  - on", 3, "s.1: 'on' would be read as bool", id="in-a-list"),
        pytest.param("a: 1\n\tb: 2", 2, "not YAML", id="tab"),
        pytest.param('a: "x\\0"', 1, "a: a NUL character", id="NUL-escaped"),
        pytest.param("a: x\0", 1, "not YAML", id="NUL"),
        pytest.param("\x07a: 1", 1, "not YAML", id="bell"),
        pytest.param("a: \ud800", 1, "not YAML", id="surrogate"),
        pytest.param(DEEP_LIST, 1, "nested deeper than 20 levels", id="deep-list"),
        pytest.param(DEEP_MAPPING, 1, "nested deeper than 20 levels", id="deep-mapping"),
        pytest.param("a: " + "[" * 100_000, 1, "nested deeper than 20 levels", id="deep-unclosed"),
        pytest.param("- 1", 1, "a mapping", id="list"),
        pytest.param("just text", 1, "a mapping", id="text"),
        pytest.param("---\na: 1\n---\nb: 2", 3, "not YAML", id="two-documents"),
        pytest.param("a: b: c", 1, "not YAML", id="two-colons"),
        pytest.param("a: [1,", 2, "not YAML", id="unclosed-list"),
        pytest.param("a: 'x", 1, "not YAML", id="unclosed-quote"),
        pytest.param("a: @x", 1, "not YAML", id="at-sign"),
    ],
)
def test_ambiguous_yaml_raises_with_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        strict_yaml.parse(text, source="deckard.yaml")
    assert caught.value.message.startswith(f"deckard.yaml:{line}: ")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 250


def test_huge_file_raises_before_parsing() -> None:
    with pytest.raises(BadInputError, match="1048577 characters"):
        strict_yaml.parse("x" * (strict_yaml.MAX_BYTES + 1), source="deckard.yaml")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", {}),
        ("# only a comment", {}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ("a: null", {"a": None}),
        ("a: ''", {"a": ""}),
        ("a: 'on'", {"a": "on"}),
        ('a: "010"', {"a": "010"}),
        ("a: true\nb: false", {"a": True, "b": False}),
        ("a: -3\nb: +4\nc: 0", {"a": -3, "b": 4, "c": 0}),
        ("a: 0.85\nb: 1e3\nc: -2.5e-1", {"a": 0.85, "b": 1000.0, "c": -0.25}),
        ("a: 0.19.1", {"a": "0.19.1"}),
        ("a: 1e999", {"a": "1e999"}),
        ("on: 1\n1: 2\nnull: 3", {"on": 1, "1": 2, "null": 3}),
        ("a: |\n  x: 1\n  on\n", {"a": "x: 1\non\n"}),
        ("a: [1, x, {b: true}]", {"a": [1, "x", {"b": True}]}),
        ("a: expandable_segments:True", {"a": "expandable_segments:True"}),
    ],
)
def test_plain_yaml_is_read(text: str, data: object) -> None:
    assert strict_yaml.parse(text, source="deckard.yaml").data == data


def message_of(text: str) -> str | None:
    try:
        strict_yaml.parse(text, source="f")
    except BadInputError as error:
        return error.message
    return None


@given(st.text(max_size=60))
def test_any_text_is_data_or_one_line_error(text: str) -> None:
    message = message_of(text)
    assert message is None or re.fullmatch(r"f(:[0-9]+)?: .+", message)


def test_where_names_the_line_of_the_key() -> None:
    document = strict_yaml.parse("# head\nserve:\n  a: 1\n\n  b:\n    - x\n", source="f.yaml")
    assert document.where(("serve", "a")) == "f.yaml:3: serve.a"
    assert document.where(("serve", "b", 0)) == "f.yaml:6: serve.b.0"
    assert document.where(("serve", "missing")) == "f.yaml:2: serve.missing"
    assert document.where(()) == "f.yaml:2"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("1", 1),
        ("1.5", 1.5),
        ("null", None),
        ("", None),
        ("x", None),
        ("0x1", None),
        ("1" * 50, None),
    ],
)
def test_plain_scalar_reads_numbers_and_booleans(text: str, value: object) -> None:
    found = strict_yaml.plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_printable_and_shortened_stay_on_one_line() -> None:
    assert escaped("größe") == "größe"
    assert escaped("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert strict_yaml.shortened("x" * 100).endswith("…")
    assert len(strict_yaml.shortened("x" * 100)) == 58
