"""The whole text must match the expression, in ASCII."""

import re
from typing import Annotated

import pytest
from pydantic import BaseModel, ValidationError

from deckard_deploy.catalog.pattern import MatchesText
from deckard_deploy.catalog.specs import Deployment


class Model(BaseModel):
    name: Annotated[str, MatchesText(r"[a-z]\w*|x:.*", "a word")]


@pytest.mark.parametrize("text", ["a", "a_1", "x:y z"])
def test_matching_text_passes(text: str) -> None:
    assert Model(name=text).name == text


@pytest.mark.parametrize("text", ["", "A", "a b", "a\n", "\na", "aé", "1a"])
def test_other_text_raises_form_in_words(text: str) -> None:
    with pytest.raises(ValidationError, match="a word was expected"):
        Model(name=text)


def test_json_schema_has_expression() -> None:
    pattern = Model.model_json_schema()["properties"]["name"]["pattern"]
    assert re.search(pattern, "a_1")
    assert not re.search(pattern, "b a")


@pytest.mark.parametrize(
    "image",
    [
        "vllm/vllm-openai:v0.19.1-cu130",
        "vllm",
        "localhost/vllm",
        "localhost:5000/vllm",
        "mirror:5000/a/b/c:1",
        "ghcr.io/aeon-7/vllm-spark-gemma4-nvfp4-awq:latest",
        "ghcr.io/a/b@sha256:" + "0f" * 32,
        "ghcr.io/a/b:tag@sha256:" + "0f" * 32,
    ],
)
def test_valid_image_references_pass(image: str) -> None:
    assert Deployment(image=image).image == image


@pytest.mark.parametrize(
    "image",
    [
        "",
        "UPPER/x",
        "a b",
        "a:",
        ":1",
        "a/",
        "/a",
        "a//b",
        "a:b:c",
        "a@sha256:00",
        "a:-x",
        "--privileged",
        "a\n",
        "a;id",
    ],
)
def test_invalid_image_references_raise(image: str) -> None:
    with pytest.raises(ValidationError, match="an image reference"):
        Deployment(image=image)
