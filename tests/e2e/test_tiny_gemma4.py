"""The tiny Gemma 4 in real vLLM 0.19.1 on a CPU, through its own parsers, and in transformers' own model class."""

import base64
import json
import os
import signal
import struct
import subprocess
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from deckard_deploy.rehearsal.gemma4 import write
from deckard_deploy.rehearsal.script import (
    ANSWER_TEXT,
    COUNT_TEXT,
    LOST,
    PLAIN_TEXT,
    THOUGHT_TEXT,
    TOOL_ARGUMENTS,
    TOOL_NAME,
    TOOL_THOUGHT_TEXT,
)
from tests.e2e.structured_requests import CHAT_CASES, COMPLETION_CASES, chat, completion, wait_until_healthy
from tests.support.ports import free_port

STATE_DICT = """
import json, sys, torch
from transformers import AutoConfig, Gemma4ForConditionalGeneration
config = AutoConfig.from_pretrained(sys.argv[1])
with torch.device("meta"):
    model = Gemma4ForConditionalGeneration(config)
print(json.dumps({name: list(tensor.shape) for name, tensor in model.state_dict().items()}))
"""

pytestmark = pytest.mark.vllm


@dataclass
class Answer:
    content: str = ""
    reasoning: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    finish_reason: str = ""

    def add(self, message: dict[str, Any], finish_reason: str | None) -> None:
        self.content += message.get("content") or ""
        self.reasoning += message.get("reasoning") or ""
        for call in message.get("tool_calls") or []:
            name = call["function"].get("name") or next(iter(self.tools))
            self.tools[name] = self.tools.get(name, "") + (call["function"].get("arguments") or "")
        self.finish_reason = finish_reason or self.finish_reason


@dataclass(frozen=True)
class Server:
    url: str

    def ask(self, content: Any, *, stream: bool = False, **options: Any) -> Answer:
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 40,
            "stream": stream,
            **options,
        }
        response = requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=120, stream=stream)
        assert response.status_code == 200, response.text
        answer = Answer()
        chunks = response.iter_lines() if stream else [b"data: " + response.content]
        for line in chunks:
            if line.startswith(b"data: {"):
                for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                    answer.add(choice["delta" if stream else "message"], choice["finish_reason"])
        return answer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def server(checkpoint: Path, engine_python: Path) -> Iterator[Server]:
    port = free_port()
    log = checkpoint.parent / "vllm.log"
    vllm = engine_python.with_name("vllm")
    argv = [
        *(
            str(vllm),
            "serve",
            str(checkpoint),
            "--served-model-name",
            "tiny",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ),
        *("--enforce-eager", "--max-model-len", "1024", "--enable-auto-tool-choice"),
        *("--reasoning-parser", "gemma4", "--tool-call-parser", "gemma4"),
    ]
    offline = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env={**os.environ, **offline}, stdout=output, stderr=output)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process, log)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


THINKING: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}
WEATHER = {"type": "object", "properties": {"days": {"type": "integer"}}}
TOOLS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": TOOL_NAME, "parameters": WEATHER}}]
}
CALL = {TOOL_NAME: json.dumps(TOOL_ARGUMENTS)}


def test_tensors_match_transformers(checkpoint: Path, engine_python: Path):
    argv = [str(engine_python), "-c", STATE_DICT, str(checkpoint)]
    expected = json.loads(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)
    content = (checkpoint / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {name: entry["shape"] for name, entry in header.items()} == expected
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Answer(PLAIN_TEXT, finish_reason="stop")),
        ({"temperature": 1.5, "seed": 7}, Answer(PLAIN_TEXT, finish_reason="stop")),
        (THINKING, Answer(ANSWER_TEXT, THOUGHT_TEXT, finish_reason="stop")),
        (TOOLS, Answer(tools=CALL, finish_reason="tool_calls")),
        (TOOLS | THINKING, Answer("", TOOL_THOUGHT_TEXT, CALL, "tool_calls")),
    ],
    ids=["plain", "hot", "thinking", "tools", "thinking and tools"],
)
def test_scripts_pass_vllm_parsers(server: Server, options, expected, stream):
    assert server.ask("Hello?", stream=stream, **options) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_count_continues_past_sliding_window(server: Server, stream):
    answer = server.ask("Please count.", stream=stream, max_tokens=120)
    assert answer == Answer(COUNT_TEXT * 10, finish_reason="length")


def test_ignore_eos_continues_counting(server: Server):
    answer = server.ask("Hello?", ignore_eos=True, max_tokens=6 + 24)
    assert answer == Answer(f"{PLAIN_TEXT}<turn|>{COUNT_TEXT * 2}", finish_reason="length")


def test_tool_result_gets_text_answer(server: Server):
    call = {"id": "1", "type": "function", "function": {"name": TOOL_NAME, "arguments": CALL[TOOL_NAME]}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    assert server.ask("", messages=messages, **TOOLS) == Answer(PLAIN_TEXT, finish_reason="stop")


def png(side: int) -> str:
    """A data URL of a square gradient."""
    rows = b"".join(b"\0" + bytes(v for x in range(side) for v in (x, y, 128)) for y in range(side))

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    image = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + image).decode()


def test_image_passes_vision_tower(server: Server):
    image = {"type": "image_url", "image_url": {"url": png(64)}}
    assert server.ask([{"type": "text", "text": "What is it?"}, image]).content == PLAIN_TEXT


def test_concurrent_requests_keep_scripts(server: Server):
    options: list[dict[str, Any]] = [{}, THINKING, TOOLS, {"stream": True}] * 2
    with ThreadPoolExecutor(len(options)) as pool:
        answers = list(pool.map(lambda option: server.ask("Hello? " * 20, **option), options))
    assert answers == [server.ask("Hello? " * 20, **option) for option in options]
    assert [answer.content for answer in answers[:4]] == [PLAIN_TEXT, ANSWER_TEXT, "", PLAIN_TEXT]


def test_prefix_cache_keeps_script(server: Server):
    assert [server.ask("x" * 900).content for _ in range(2)] == [PLAIN_TEXT, PLAIN_TEXT]


def test_prompt_without_chat_template_is_lost(server: Server):
    body = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 3}
    answer = requests.post(f"{server.url}/v1/completions", json=body, timeout=120).json()
    assert answer["choices"][0]["text"] == LOST * 3


# What the patch `reasoning` is for; with it: test_structured_output.py.
def test_release_ignores_grammar_after_tool_result(server: Server):
    body, follows = CHAT_CASES["json_schema after a tool"]
    answer = chat(server.url, stream=False, **body)
    assert not follows(answer)
    assert answer.text == PLAIN_TEXT


def test_release_ignores_grammar_of_completion(server: Server):
    body, follows = COMPLETION_CASES["regex"]
    assert not follows(completion(server.url, stream=False, **body))
