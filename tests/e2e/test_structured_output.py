"""A grammar constrains every answer that was asked for with one, in the real engines.

The checkpoint is of the small family, whose prompt without thinking has no empty thought: the harder case. Both
families, and random schemas, are in tests/campaigns/structured_output.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from deckard_deploy.patching import request_filter
from deckard_deploy.rehearsal import gemma4
from tests.e2e import patched
from tests.e2e.random_schemas import judged, schemas
from tests.e2e.structured_requests import (
    CHAT_CASES,
    COMPLETION_CASES,
    FORCED_CASES,
    MODEL,
    QUESTION,
    RESPONSES_CASES,
    chat,
    completion,
    engine,
    has_call,
    responses,
)

pytestmark = pytest.mark.vllm
THINKING: dict[bool, dict[str, Any]] = {
    False: {},
    True: {"chat_template_kwargs": {"enable_thinking": True}},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma4.write(tmp_path_factory.mktemp("tiny") / "small", family="small")


@pytest.fixture(scope="module")
def old(engine_python: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    overlay = patched.make_overlay(engine_python, tmp_path_factory.mktemp("patched"))
    with engine(engine_python, checkpoint, overlay) as url:
        yield url


@pytest.fixture(scope="module")
def new(new_engine_python: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As a deployment has it: with the filter, which refuses what this release would ignore."""
    folder = tmp_path_factory.mktemp("filter")
    request_filter.build(folder / request_filter.FILE)
    with engine(
        new_engine_python, checkpoint, folder, "--middleware", f"{request_filter.MODULE}.Filter"
    ) as url:
        yield url


@pytest.fixture(params=["old", "new"], scope="module")
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.mark.parametrize("case", CHAT_CASES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("thinking", [False, True], ids=["plain", "thinking"])
def test_chat_answer_follows_its_grammar(url: str, case, stream, thinking):
    body, follows = CHAT_CASES[case]
    answer = chat(url, stream=stream, **body, **THINKING[thinking])
    assert follows(answer), answer
    assert bool(answer.thoughts) == thinking


@pytest.mark.parametrize("case", RESPONSES_CASES)
def test_response_follows_its_grammar(url: str, case):
    body, follows = RESPONSES_CASES[case]
    answer = responses(url, stream=False, **body)
    assert follows(answer), answer


@pytest.mark.parametrize("case", RESPONSES_CASES)
@pytest.mark.parametrize("effort", [None, "high"], ids=["plain", "thinking"])
def test_streamed_response_follows_its_grammar(new: str, case, effort):
    body, follows = RESPONSES_CASES[case]
    answer = responses(new, stream=True, **body, reasoning={"effort": effort})
    assert follows(answer), answer
    assert bool(answer.thoughts) == bool(effort)


@pytest.mark.parametrize("way", ["required", "named"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("thinking", [False, True], ids=["plain", "thinking"])
def test_forced_call_is_made_by_old_release(old: str, way, stream, thinking):
    body = FORCED_CASES["/v1/chat/completions"][way]
    answer = chat(old, stream=stream, **body, **THINKING[thinking])
    assert has_call(answer), answer


@pytest.mark.parametrize("way", ["required", "named"])
def test_forced_call_of_response_is_made_by_old_release(old: str, way):
    answer = responses(old, stream=False, **FORCED_CASES["/v1/responses"][way])
    assert has_call(answer), answer


@pytest.mark.parametrize("way", ["required", "named"])
@pytest.mark.parametrize("path", FORCED_CASES)
def test_forced_call_is_refused_by_new_release(new: str, path, way):
    """The bare release calls get_weather instead, which nobody offered: tests/campaigns/forced_calls.py."""
    asked = {"input": "Hello?"} if path == "/v1/responses" else {"messages": QUESTION, "max_tokens": 64}
    body = {"model": MODEL, **asked, **FORCED_CASES[path][way]}
    refused = requests.post(new + path, json=body, timeout=300)
    assert refused.status_code == 400
    assert "treats it as auto" in refused.json()["error"]["message"]
    del body["tool_choice"]
    assert requests.post(new + path, json=body, timeout=300).status_code == 200


@pytest.mark.parametrize("case", COMPLETION_CASES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_completion_follows_its_grammar(url: str, case, stream):
    body, follows = COMPLETION_CASES[case]
    answer = completion(url, stream=stream, **body)
    assert follows(answer), answer


def test_random_schemas_are_followed(url: str):
    """A slice of the campaign. 0.19.1's grammars have no bound of an integer that has a `minimum` alone."""
    results = list(judged(url, schemas(12, 17)))
    others = [one for one in results if one.verdict != "valid"]
    assert len(others) <= 0.05 * len(results), others
