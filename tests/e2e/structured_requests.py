"""Requests whose answer a grammar constrains, each with the check of its answer.

They are those of an endpoint on which a reasoning parser runs: with and without thinking, streamed and whole, by each
API. What a model of the `small` family gets has no empty thought at its end, so the engine itself has to know that the
answer has begun.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from deckard_deploy.rehearsal.script import TOOL_NAME
from tests.e2e.patched import environment
from tests.support.ports import free_port

MODEL = "tiny"
START_SECONDS = 420
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "colours": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 1},
    },
    "required": ["city", "days", "colours"],
    "additionalProperties": False,
}
ARGUMENTS = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
FUNCTION = {"name": TOOL_NAME, "description": "The weather.", "parameters": ARGUMENTS}
# By itself the tiny model calls get_weather: only a grammar makes it call another tool.
FORCED: dict[str, Any] = {**FUNCTION, "name": "pick_days"}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": FUNCTION}]}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
QUESTION = [{"role": "user", "content": "Hello?"}]
CALL = {"id": "1", "type": "function", "function": {"name": TOOL_NAME, "arguments": '{"days": 3}'}}
AFTER_TOOL = [
    *QUESTION,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "sunny"},
]


@dataclass
class Answer:
    """What a client gets: the text, the thoughts, the calls by name, and why the answer ended."""

    text: str = ""
    thoughts: str = ""
    calls: dict[str, str] = field(default_factory=dict)
    finish: str = ""


def chat(url: str, *, stream: bool, **body: Any) -> Answer:
    """Ask /v1/chat/completions."""
    answer = Answer()
    for event in _events(f"{url}/v1/chat/completions", {"messages": QUESTION, "stream": stream, **body}):
        for choice in event["choices"]:
            message = choice["delta" if stream else "message"]
            answer.text += message.get("content") or ""
            answer.thoughts += message.get("reasoning") or ""
            answer.finish = choice["finish_reason"] or answer.finish
            for call in message.get("tool_calls") or []:
                name = call["function"].get("name") or next(iter(answer.calls))
                answer.calls[name] = answer.calls.get(name, "") + (call["function"].get("arguments") or "")
    return answer


def responses(url: str, *, stream: bool, **body: Any) -> Answer:
    """Ask /v1/responses."""
    answer = Answer()
    for event in _events(f"{url}/v1/responses", {"input": "Hello?", "stream": stream, **body}):
        if stream and event["type"] not in ("response.completed", "response.incomplete"):
            continue
        whole = event["response"] if stream else event
        answer.finish = whole["status"]
        for item in whole["output"]:
            if item["type"] == "function_call":
                answer.calls[item["name"]] = item["arguments"]
            elif item["type"] == "reasoning":
                answer.thoughts += "".join(part["text"] for part in item["content"])
            else:
                answer.text += "".join(part["text"] for part in item["content"])
    return answer


def completion(url: str, *, stream: bool, **body: Any) -> Answer:
    """Ask /v1/completions, which has no chat template."""
    answer = Answer()
    for event in _events(f"{url}/v1/completions", {"prompt": "Hello?", "stream": stream, **body}):
        for choice in event["choices"]:
            answer.text += choice["text"]
            answer.finish = choice["finish_reason"] or answer.finish
    return answer


def _events(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    limit = "max_output_tokens" if url.endswith("responses") else "max_tokens"
    sent = {"model": MODEL, limit: 200, **body}
    with requests.post(url, json=sent, timeout=300, stream=True) as response:
        assert response.status_code == 200, response.text
        for line in response.iter_lines() if sent["stream"] else [b"data: " + response.content]:
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))


def is_document(text: str) -> bool:
    """Return whether the text is a document of SCHEMA."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return (
        set(found) == set(SCHEMA["properties"])  # type: ignore[call-overload]
        and isinstance(found["city"], str)
        and isinstance(found["days"], int)
        and bool(found["colours"])
        and set(found["colours"]) <= {"red", "green"}
    )


def is_object(text: str) -> bool:
    """Return whether the text is any JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def has_call(answer: Answer) -> bool:
    """Return whether the answer is one call of FORCED with arguments of its schema, and nothing else."""
    arguments = answer.calls.get(FORCED["name"], "")
    return (
        not answer.text
        and len(answer.calls) == 1
        and is_object(arguments)
        and isinstance(json.loads(arguments).get("days"), int)
    )


Check = Callable[[Answer], bool]
CHAT_CASES: dict[str, tuple[dict[str, Any], Check]] = {
    "json_schema": ({"response_format": JSON_SCHEMA}, lambda answer: is_document(answer.text)),
    "json_schema after a tool": (
        {"response_format": JSON_SCHEMA, "messages": AFTER_TOOL, **TOOLS, "tool_choice": "none"},
        lambda answer: is_document(answer.text),
    ),
    "json_object": ({"response_format": {"type": "json_object"}}, lambda answer: is_object(answer.text)),
    "choice": (
        {"structured_outputs": {"choice": ["red", "green"]}},
        lambda answer: answer.text in ("red", "green"),
    ),
    "regex": (
        {"structured_outputs": {"regex": "[a-c]{2}"}},
        lambda answer: re.fullmatch("[a-c]{2}", answer.text) is not None,
    ),
    "grammar": (
        {"structured_outputs": {"grammar": 'root ::= "yes" | "no"'}},
        lambda answer: answer.text in ("yes", "no"),
    ),
}
RESPONSES_CASES: dict[str, tuple[dict[str, Any], Check]] = {
    "json_schema": (
        {"text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}}},
        lambda answer: is_document(answer.text),
    ),
}
CHAT_TOOLS = {"tools": [{"type": "function", "function": FORCED}]}
RESPONSES_TOOLS = {"tools": [{"type": "function", **FORCED}]}
MESSAGES_TOOLS = {"tools": [{"name": FORCED["name"], "input_schema": ARGUMENTS}]}
NAMED = {"type": "function", "name": FORCED["name"]}
# Forced calls: path -> way -> body. has_call says if the answer is right.
FORCED_CASES: dict[str, dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {
        "required": {**CHAT_TOOLS, "tool_choice": "required"},
        "named": {**CHAT_TOOLS, "tool_choice": {"type": "function", "function": {"name": FORCED["name"]}}},
    },
    "/v1/responses": {
        "required": {**RESPONSES_TOOLS, "tool_choice": "required"},
        "named": {**RESPONSES_TOOLS, "tool_choice": NAMED},
    },
    "/v1/messages": {
        "required": {**MESSAGES_TOOLS, "tool_choice": {"type": "any"}},
        "named": {**MESSAGES_TOOLS, "tool_choice": {**NAMED, "type": "tool"}},
    },
}
COMPLETION_CASES = {name: CHAT_CASES[name] for name in ("json_schema", "json_object", "choice", "regex")}


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.5)  # the port is not served before the engine is ready
    pytest.fail(f"not healthy after {START_SECONDS} s: {log.read_text()[-4000:]}")


@contextmanager
def engine(python: Path, checkpoint: Path, first_on_path: Path | None, *options: str) -> Iterator[str]:
    """Serve the checkpoint with this Python's vLLM, and yield the URL."""
    port, log = free_port(), checkpoint.parent / f"vllm.{python.parents[1].name}.log"
    argv = [str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint)]
    argv += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--enforce-eager", "--max-model-len", "1024", "--enable-auto-tool-choice"]
    argv += ["--reasoning-parser", "gemma4", "--tool-call-parser", "gemma4", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            env={**environment(first_on_path), "VLLM_CPU_KVCACHE_SPACE": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
