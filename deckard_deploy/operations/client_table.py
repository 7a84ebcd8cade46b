"""The requests by which a release is judged: what clients ask, and what a right answer holds.

For the tiny model of the rehearsal, whose answers are known. A value of the table is what is wrong; "" if nothing is.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import requests

TIMEOUT_S = 120
MODEL = "tiny"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]},
    },
}
CHOICE = ["Paris", "Rome"]  # no JSON: between its tokens the tiny model likes blanks without end


def wait_until_ready(base: str, alive: Callable[[], bool], limit_s: float) -> bool:
    """Wait for the list of models. Return False when the server ended, or the time did."""
    deadline = time.monotonic() + limit_s
    while alive() and time.monotonic() < deadline:
        try:
            if requests.get(f"{base}/v1/models", timeout=5).ok:
                return True
        except requests.RequestException:
            time.sleep(0.5)
    return False


def ask_all(base: str) -> dict[str, str]:
    """Return the table: name of the request -> what is wrong with its answer."""
    cases: dict[str, Callable[[str], str]] = {
        "chat": _chat,
        "stream": _stream,
        "reasoning": _reasoning,
        "tool call": _tool_call,
        "required tool": _required_tool,
        "structured output": _structured,
        "structured output, thinking": _structured_thinking,
        "completion": _completion,
        "responses": _responses,
        "messages": _messages,
        "bad grammar": _bad_grammar,
    }
    found = {}
    for name, case in cases.items():
        try:
            found[name] = case(base)
        except (requests.RequestException, ValueError, KeyError, IndexError, TypeError) as error:
            found[name] = f"{type(error).__name__}: {error}"[:120]
    return found


def _post(base: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = requests.post(f"{base}{path}", json={"model": MODEL, **body}, timeout=TIMEOUT_S)
    answer.raise_for_status()
    return dict(answer.json())


def _message(base: str, question: str, **more: object) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "temperature": 0}
    body |= {"max_tokens": 64, **more}
    return dict(_post(base, "/v1/chat/completions", body)["choices"][0]["message"])


def _chat(base: str) -> str:
    return "" if _message(base, "Hello?")["content"] else "no text"


def _stream(base: str) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}], "temperature": 0}
    body |= {"stream": True, "max_tokens": 64}
    pieces = []
    answer = requests.post(f"{base}/v1/chat/completions", json=body, timeout=TIMEOUT_S, stream=True)
    for line in answer.iter_lines(decode_unicode=True):
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                pieces.append(choice["delta"].get("content") or "")
    whole = _message(base, "Hello?")["content"]
    return "" if "".join(pieces) == whole else f"{''.join(pieces)[:40]!r}, whole {whole[:40]!r}"


def _reasoning(base: str) -> str:
    found = _message(base, "Which city?", chat_template_kwargs={"enable_thinking": True})
    return "" if found.get("reasoning") or found.get("reasoning_content") else "no thoughts"


def _tool_call(base: str) -> str:
    return _wrong_call(_message(base, "What is the weather?", tools=[TOOL]))


def _required_tool(base: str) -> str:
    return _wrong_call(_message(base, "What is the weather?", tools=[TOOL], tool_choice="required"))


def _wrong_call(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls") or []
    if not calls:
        return "no call"
    arguments = json.loads(calls[0]["function"]["arguments"])
    return "" if isinstance(arguments.get("days"), int) else f"arguments {arguments}"


def _structured(base: str) -> str:
    return _wrong_choice(_message(base, "Which city?", structured_outputs={"choice": CHOICE}))


def _structured_thinking(base: str) -> str:
    thinking = {"enable_thinking": True}
    more = {"structured_outputs": {"choice": CHOICE}, "chat_template_kwargs": thinking, "max_tokens": 128}
    return _wrong_choice(_message(base, "Which city?", **more))


def _wrong_choice(message: dict[str, Any]) -> str:
    text = message["content"]
    return "" if text in CHOICE else f"{(text or '')[:40]!r} is none of the choices"


def _completion(base: str) -> str:
    found = _post(base, "/v1/completions", {"prompt": "Hello", "max_tokens": 4, "temperature": 0})
    return "" if found["usage"]["completion_tokens"] else "no token"


def _responses(base: str) -> str:
    found = _post(base, "/v1/responses", {"input": "Hello?", "temperature": 0, "max_output_tokens": 64})
    return "" if found["status"] in ("completed", "incomplete") else found["status"]


def _messages(base: str) -> str:
    # With a temperature and a drafter the CPU build of 0.32 dies (docs/engines.md, "Known limits of 0.32.0").
    body: dict[str, Any] = {
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Hello?"}],
        "temperature": 0,
    }
    return "" if _post(base, "/v1/messages", body)["content"] else "no content"


def _bad_grammar(base: str) -> str:
    """A grammar that cannot be compiled is refused, and the engine answers the next request."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello?"}],
        "temperature": 0,
    }
    body |= {"structured_outputs": {"regex": "(["}, "max_tokens": 4}
    answer = requests.post(f"{base}/v1/chat/completions", json=body, timeout=TIMEOUT_S)
    if answer.status_code != requests.codes.bad_request:
        return f"status {answer.status_code}"
    return _chat(base)
