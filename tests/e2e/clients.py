"""The official OpenAI client against an endpoint: what every runtime has to answer."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from openai import OpenAI

START_S = 600  # on a busy machine; only ends a test that has failed
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of the coming days.",
            "parameters": {
                "type": "object",
                "properties": {"days": {"type": "integer"}},
                "required": ["days"],
            },
        },
    }
]


@contextmanager
def client(base_url: str) -> Iterator[tuple[Any, str]]:
    """The official client and the served model; what the client's many overloads say, a test inspects anyway."""
    with OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120) as openai:
        yield openai, openai.models.list().data[0].id


def plain(base_url: str) -> tuple[str, str]:
    """The plain answer, whole and streamed."""
    ask = [{"role": "user", "content": "Hello?"}]
    with client(base_url) as (openai, model):
        whole = openai.chat.completions.create(model=model, messages=ask, temperature=0)
        stream = openai.chat.completions.create(model=model, messages=ask, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    return whole.choices[0].message.content or "", "".join(pieces)


def reasoning(base_url: str) -> dict[str, str]:
    """Thoughts and answer, whole and streamed."""
    ask = [{"role": "user", "content": "Which city?"}]
    extra = {"chat_template_kwargs": {"enable_thinking": True}}
    with client(base_url) as (openai, model):
        whole = openai.chat.completions.create(model=model, messages=ask, temperature=0, extra_body=extra)
        said = whole.choices[0].message.model_dump()
        found = {"whole_content": said["content"] or "", "whole_reasoning": said.get("reasoning") or ""}
        found |= {"content": "", "reasoning": ""}
        stream = openai.chat.completions.create(
            model=model, messages=ask, temperature=0, stream=True, extra_body=extra
        )
        for chunk in stream:
            delta = chunk.choices[0].delta.model_dump() if chunk.choices else {}
            found["content"] += delta.get("content") or ""
            found["reasoning"] += delta.get("reasoning") or ""
    return found


def tool_call(base_url: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Name and arguments of the call, whole and streamed."""
    ask = [{"role": "user", "content": "How will the weather be?"}]
    name = arguments = ""
    with client(base_url) as (openai, model):
        whole = openai.chat.completions.create(model=model, messages=ask, tools=TOOLS, temperature=0)
        call = whole.choices[0].message.tool_calls[0].function
        stream = openai.chat.completions.create(
            model=model, messages=ask, tools=TOOLS, temperature=0, stream=True
        )
        for chunk in stream:
            for part in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                name += part.function.name or ""
                arguments += part.function.arguments or ""
    return (call.name, call.arguments), (name, arguments)


def concurrent_chat(base_url: str, requests_at_once: int) -> list[int]:
    """Completion tokens of non-streaming chats sent at once, as the model card's author benchmarks."""
    model = requests.get(f"{base_url}/models", timeout=120).json()["data"][0]["id"]

    def one(_: int) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 300}
        answer = requests.post(f"{base_url}/chat/completions", json=body, timeout=120)
        answer.raise_for_status()
        return int(answer.json()["usage"]["completion_tokens"])

    with ThreadPoolExecutor(requests_at_once) as pool:
        return list(pool.map(one, range(requests_at_once)))


def until_ready(url: str, said: Callable[[], str]) -> None:
    """Wait for a 200; `said` is what the server has said when there is none."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    pytest.fail(f"not ready: {said()}")
