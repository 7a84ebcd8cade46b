"""Advisories on vLLM 0.19.1 that a CPU can show: the bare engine's fault, and the same request to a filtered one."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.safety import safe_serve
from deckard_deploy.patching import request_filter
from deckard_deploy.rehearsal import gemma4
from tests.e2e.structured_requests import MODEL, QUESTION, engine
from tests.support.waiting import eventually

pytestmark = pytest.mark.vllm
# GHSA-4xqp-c3mv-qff7 is of the same field. MinTokensLogitsProcessor writes at each stop token's id, and nothing
# compares the id with the vocabulary (vllm/v1/sample/logits_processor/builtin.py of 0.19.1).
ENDS_ENGINE: dict[str, Any] = {"min_tokens": 1, "stop_token_ids": [10**6]}
# CVE-2026-105757: xgrammar, which the first grammar has chosen for all, does not read this one, and guidance does.
OF_XGRAMMAR: dict[str, Any] = {"structured_outputs": {"regex": "[ab]{2}"}}
ENDS_ENGINE_TOO: dict[str, Any] = {"structured_outputs": {"regex": "(?i)ab"}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma4.write(tmp_path_factory.mktemp("tiny") / "small", family="small")


@pytest.fixture(scope="module")
def filtered(
    engine_python: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("filter")
    request_filter.build(folder / request_filter.FILE)
    settings = json.dumps(safe_serve(option_schema("vllm-0.19.1"))["structured-outputs-config"])
    options = ("--middleware", f"{request_filter.MODULE}.Filter", "--structured-outputs-config", settings)
    with engine(engine_python, checkpoint, folder, *options) as url:
        yield url


def ask(url: str, **body: Any) -> requests.Response:
    sent = {"model": MODEL, "messages": QUESTION, "max_tokens": 8, "temperature": 0, **body}
    return requests.post(f"{url}/v1/chat/completions", json=sent, timeout=300)


def picture(width: int, height: int, uuid: str) -> dict[str, Any]:
    """The message with a picture of its own size, under an id that the client chooses."""
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((width, height)).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    part = {"type": "image_url", "image_url": {"url": url}, "uuid": uuid}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, part]}]}


def prompt_tokens(response: requests.Response) -> int:
    assert response.status_code == 200, response.text
    return int(response.json()["usage"]["prompt_tokens"])


def test_bare_engine_shows_its_faults(engine_python: Path, checkpoint: Path):
    with engine(engine_python, checkpoint, None) as url:
        # GHSA-p92p-rxj5-7p2x: the id is the cache's key, so that a client gets the picture of another.
        small, large = (
            prompt_tokens(ask(url, **picture(64, 64, "a"))),
            prompt_tokens(ask(url, **picture(640, 900, "b"))),
        )
        assert small != large
        assert prompt_tokens(ask(url, **picture(640, 900, "a"))) == small
        assert ask(url, **ENDS_ENGINE).status_code == 500
        eventually(lambda: not answers(url))


def test_grammar_of_another_backend_ends_bare_engine(engine_python: Path, checkpoint: Path):
    with engine(engine_python, checkpoint, None) as url:
        assert ask(url, **OF_XGRAMMAR).status_code == 200
        assert ask(url, **ENDS_ENGINE_TOO).status_code == 500
        eventually(lambda: not answers(url))


def answers(url: str) -> bool:
    """Return True if the engine answers a chat."""
    try:
        return ask(url).status_code == 200
    except requests.ConnectionError:
        return False


def test_filtered_engine_refuses_and_goes_on(filtered: str):
    for body in (
        ENDS_ENGINE,
        picture(64, 64, "a"),
        {"bad_words": ["a"]},
        {"min_tokens": 10**6, "max_tokens": None},
    ):
        refused = ask(filtered, **body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsafe_field")
    assert ask(filtered, **OF_XGRAMMAR).status_code == 200
    refused = ask(filtered, **ENDS_ENGINE_TOO)
    assert refused.status_code == 400, refused.text
    # xgrammar reads no `multipleOf`, and without a backend of its own the release leaves it out in silence.
    form = {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {"type": "integer", "multipleOf": 3}},
    }
    assert ask(filtered, response_format=form).status_code == 400
    whole = ask(filtered).json()["choices"][0]["message"]["content"]
    streamed = ask(filtered, stream=True)
    assert whole
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "usage" not in streamed.text
