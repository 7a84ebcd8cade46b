"""Questions whose answers show damage that a plain completion does not: broken characters, calls, documents.

Some NVFP4 checkpoints answer in sound English and write bytes that are no UTF-8 in other scripts, some of them only
when several requests run together (vllm-project/vllm#54150, #57087, both open). The engine shows such bytes as U+FFFD.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from deckard_deploy.system.http import EndpointCredentials, session

AT_ONCE = 4
MAX_TOKENS = 128  # 18 s at the 7 tokens a second of a Spark without a drafter
CONNECT_TIMEOUT_S = 5.0
BROKEN = "\N{REPLACEMENT CHARACTER}"
REPEAT = "다음 문장을 그대로 열 번 써 주세요: 안녕하세요! 오늘은 날씨가 참 좋습니다. 🌞🌧️👩‍🚀🇰🇷"
TOOL = {
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
SCHEMA = {
    "type": "object",
    "properties": {"capital": {"type": "string", "maxLength": 40}, "rivers": {"type": "integer"}},
    "required": ["capital", "rivers"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that is ready. calls_tools: the engine was started with a parser for calls."""

    base_url: str
    model: str
    access: EndpointCredentials
    calls_tools: bool
    timeout_s: float = 120.0


def find_damage(endpoint: Endpoint) -> list[str]:
    """Ask for text alone and four times together, a call and a document. Return what was wrong, one line each.

    A question without an answer is a line too. Never raises because of a server's behaviour.
    """
    found = []
    for count in (1, AT_ONCE):
        broken = [answer for answer in _texts(endpoint, count) if _is_broken(answer)]
        if broken:
            together = "alone" if count == 1 else f"of {count} together"
            found.append(f"{len(broken)} answer(s) {together} with broken characters (U+FFFD) or none at all")
    if endpoint.calls_tools and not _calls(endpoint):
        found.append("no call of a tool, or one with other arguments than its schema's")
    if not _writes_document(endpoint):
        found.append("no document of the JSON schema that was asked for")
    return found


def _texts(endpoint: Endpoint, count: int) -> Sequence[dict[str, Any]]:
    questions = [
        {"messages": [{"role": "user", "content": f"{number}. {REPEAT}"}], "temperature": 0}
        for number in range(count)
    ]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda question: _ask(endpoint, question), questions))


def _ask(endpoint: Endpoint, question: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice; an empty dictionary without one."""
    body = {"model": endpoint.model, "max_tokens": MAX_TOKENS, **question}
    try:
        with session(endpoint.access) as client:
            answer = client.post(
                f"{endpoint.base_url}/chat/completions",
                json=body,
                timeout=(CONNECT_TIMEOUT_S, endpoint.timeout_s),
                allow_redirects=False,
            )
        choice = answer.json()["choices"][0] if answer.status_code == HTTPStatus.OK else {}
    except (requests.RequestException, ValueError, LookupError, TypeError):
        return {}
    return choice if isinstance(choice, dict) and isinstance(choice.get("message"), dict) else {}


def _is_broken(choice: dict[str, Any]) -> bool:
    message = choice.get("message", {})
    text = str(message.get("content") or message.get("reasoning") or "")
    if choice.get("finish_reason") == "length":
        text = text.removesuffix(BROKEN)  # the limit may cut a character
    return not text or BROKEN in text


def _calls(endpoint: Endpoint) -> bool:
    asked = [{"role": "user", "content": "Call get_weather for the next 3 days."}]
    choice = _ask(endpoint, {"messages": asked, "tools": [TOOL]})
    try:
        function = choice["message"]["tool_calls"][0]["function"]
        return function["name"] == "get_weather" and isinstance(
            json.loads(function["arguments"])["days"], int
        )
    except (ValueError, LookupError, TypeError):
        return False


def _writes_document(endpoint: Endpoint) -> bool:
    asked = [
        {"role": "user", "content": "The capital of Korea, and how many rivers cross it. Answer as JSON."}
    ]
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    choice = _ask(endpoint, {"messages": asked, "response_format": form})
    try:
        found = json.loads(choice["message"]["content"])
        return isinstance(found["capital"], str) and isinstance(found["rivers"], int)
    except (ValueError, LookupError, TypeError):
        return False
