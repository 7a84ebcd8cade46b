"""One-line errors that name the first problem of a document."""

from typing import Annotated

import pytest
from pydantic import Field

from deckard_deploy.catalog.specs import Spec
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import BadInputError


class Inner(Spec):
    port: Annotated[int, Field(ge=1)] = 1
    names: tuple[str, ...] = ()


class Outer(Spec):
    title: str
    inner: Inner = Inner()
    table: dict[str, str] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {}", "f:1: 'title' is required"),
        ("titel: x", "f:1: titel: unknown key; did you mean 'title'? (and 1 more)"),
        ("title: x\nzzz: 1", "f:2: zzz: unknown key; known: title, inner, table"),
        ("title: x\ninner:\n  prot: 1", "f:3: inner.prot: unknown key; did you mean 'port'?"),
        ("title: x\ninner:\n  port: 0", "f:3: inner.port: 0: input should be greater than or equal to 1"),
        (
            "title: x\ninner:\n  port: '1'",
            "f:3: inner.port: '1': a whole number was expected, without quotes",
        ),
        ("title: x\ninner:\n  port: true", "f:3: inner.port: True: a whole number was expected"),
        ("title: x\ninner:\n  port: 1.0", "f:3: inner.port: 1.0: a whole number was expected"),
        ("title: x\ninner:\n  names: [a, 1]", "f:3: inner.names.1: 1: text was expected: quote it"),
        ("title: x\ninner: 3", "f:2: inner: 3: "),
        ("title: 3", "f:1: title: 3: text was expected: quote it"),
        ("title: x\ntable:\n  a: 1", "f:3: table.a: 1: text was expected: quote it"),
        ("title: [" + "x, " * 100 + "]", "f:1: title: ['x', 'x'"),
    ],
)
def test_first_problem_is_named(text: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        validate(parse(text, source="f"), Outer)
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 200


def test_valid_document_becomes_spec() -> None:
    found = validate(parse("title: x\ninner: {port: 3, names: [a]}", source="f"), Outer)
    assert found == Outer(title="x", inner=Inner(port=3, names=("a",)))
