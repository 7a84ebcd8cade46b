"""The filter of requests: what it refuses on which release, what passes unchanged, and what it counts for a key."""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import prometheus_client
import pytest

from deckard_deploy.patching import request_filter
from deckard_deploy.resources import plugins_dir

CHAT = "/v1/chat/completions"


def load() -> ModuleType:
    path = plugins_dir() / request_filter.NAME / request_filter.FILE
    spec = importlib.util.spec_from_file_location(request_filter.MODULE, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[request_filter.MODULE] = module
    spec.loader.exec_module(module)
    return module


filters = load()


class Engine:
    """An ASGI application that keeps the bodies that reach it, and answers with pieces."""

    def __init__(self, *pieces: bytes, kind: str = "application/json", status: int = 200) -> None:
        self.pieces = pieces or (b"{}",)
        self.kind = kind
        self.status = status
        self.heard: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.heard.append(body)
        assert (
            dict(scope["headers"]).get(b"content-length", str(len(body)).encode()) == str(len(body)).encode()
        )
        headers = [(b"content-type", self.kind.encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def post(
    asgi: Any,
    body: Any,
    path: str = CHAT,
    headers: dict[str, str] | None = None,
    *,
    pieces: int = 1,
    app: Any = None,
) -> tuple[int, bytes, dict[str, str]]:
    """Send a request in some pieces. Return status, body and headers of the answer. app: vLLM's application."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = max(1, -(-len(raw) // pieces))
    waiting = [raw[at : at + size] for at in range(0, len(raw), size)] or [b""]
    sent: list[Any] = []

    async def receive() -> Any:
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": given, "app": app}
    asyncio.run(asgi(scope, receive, send))
    start = sent[0]
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], b"".join(message.get("body", b"") for message in sent[1:]), answered


def image(**more: Any) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": "data:"}, **more}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "uuid"}, part]}]}


SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "[a-z]{1,1000}"}}}
# Each with the first release that accepts it, as doctor/rules/advisories.yaml has it.
UNSAFE: list[tuple[Any, str | None]] = [
    ({"bad_words": ["a"]}, "0.30.0"),
    ({"cache_salt": "a"}, "0.30.0"),
    ({"allowed_token_ids": [1]}, "0.31.0"),
    ({"mm_processor_kwargs": {"code_revision": "a"}}, "0.31.0"),
    ({"media_io_kwargs": {"video": {"num_frames": 9}}}, "0.32.0"),
    ({"prompt_embeds": "AAAA"}, None),
    (image(uuid="a"), "0.31.0"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "uuid": "a"}]}]}, "0.31.0"),
    ({"chat_template": "{% for _ in range(10**9) %}a{% endfor %}"}, "0.32.0"),
    ({"chat_template_kwargs": {"chat_template": "a"}}, "0.32.0"),
    ({"prompt": ["a"] * 257}, "0.26.0"),
    ({"prompt": [[1]] * 257}, "0.26.0"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}] * 33}]}, "0.33.0"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}] * 33}]}, "0.33.0"),
    ({"messages": [{"role": "user", "content": [{"image_url": "a"}]}] * 33}, "0.33.0"),
    ({"min_tokens": 10**6}, "0.31.0"),
    ({"min_tokens": "1000000"}, "0.31.0"),
    ({"min_tokens": -1}, "0.31.0"),
    ({"min_tokens": 1, "stop_token_ids": [10**6]}, "0.31.0"),
    ({"max_tokens": 0}, "0.30.0"),
    ({"max_completion_tokens": 0}, "0.30.0"),
    ({"max_output_tokens": -1}, "0.30.0"),
    ({"structured_outputs": {"regex": "a" * 1001}}, "0.24.0"),
    ({"structured_outputs": {"regex": "([a-z]{1,30}){1,30}"}}, "0.24.0"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, "0.24.0"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}, "0.24.0"),
]


@pytest.mark.parametrize(("body", "fixed"), UNSAFE)
def test_unsafe_field_is_refused_where_release_is_open(body: Any, fixed: str | None):
    engine = Engine()
    status, answer, _ = post(filters.Filter(engine, "0.19.1"), body)
    assert (status, engine.heard) == (400, [])
    assert "vLLM 0.19.1 is open to" in json.loads(answer)["error"]["message"]
    newest = Engine()
    assert post(filters.Filter(newest, "0.33.0"), body)[0] == (200 if fixed else 400)
    if fixed:
        assert post(filters.Filter(Engine(), fixed), body)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "min_tokens"}], "max_tokens": 1, "min_tokens": 4},
        {"bad_words": [], "cache_salt": None, "allowed_token_ids": None, "max_tokens": None},
        {
            "tools": [
                {"type": "function", "function": {"parameters": {"properties": {"uuid": {"type": "string"}}}}}
            ]
        },
        {"stop_token_ids": [1]},
        {"prompt": [1] * 1000},
        {"prompt": ["a"] * 256},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}] * 32 + [{"type": "text"}] * 9}]},
        {"structured_outputs": {"regex": "[a-c]{2}"}},
        image(),
        [{"bad_words": ["a"]}],
    ],
)
def test_harmless_request_passes_unchanged(body: Any):
    engine = Engine(b"{", b"}")
    raw = json.dumps(body, indent=1).encode()
    assert post(filters.Filter(engine, "0.19.1"), raw, pieces=3)[:2] == (200, b"{}")
    assert engine.heard == [raw]


def test_last_of_two_equal_keys_counts_as_in_vllm():
    both = b'{"bad_words": [], "bad_words": ["a"]}'
    assert post(filters.Filter(Engine(), "0.19.1"), both)[0] == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), ('{"a": 1}'.encode("utf-16"), 400), (b"[" * 100_000, 400), (b" " * (32 * 2**20 + 1), 413)],
    ids=["broken", "utf-16", "deep", "large"],
)
def test_unreadable_body_is_refused(body: bytes, status: int):
    engine = Engine()
    assert post(filters.Filter(engine, "0.19.1"), body)[0] == status
    assert engine.heard == []


RESPONSES, MESSAGES, COMPLETIONS = "/v1/responses", "/v1/messages", "/v1/completions"
NAMED = {"type": "function", "function": {"name": "f"}}
FORMAT = {"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}}
GRAMMAR = {"structured_outputs": {"choice": ["a"]}}
# Each with the releases that would ignore it: docs/structured-output.md.
IGNORED: list[tuple[str, Any, set[str]]] = [
    (CHAT, {"tool_choice": "required"}, {"0.32.0", "0.33.0"}),
    (CHAT, {"tool_choice": NAMED}, {"0.32.0", "0.33.0"}),
    (RESPONSES, {"tool_choice": {"type": "function", "name": "f"}}, {"0.32.0", "0.33.0"}),
    (RESPONSES, {"tool_choice": {"type": "allowed_tools"}}, {"0.19.1", "0.32.0", "0.33.0"}),
    (RESPONSES, {"tool_choice": "required", "stream": True}, {"0.19.1", "0.32.0", "0.33.0"}),
    (RESPONSES, {**FORMAT, "stream": True}, {"0.19.1"}),
    (MESSAGES, {"tool_choice": {"type": "any"}}, {"0.32.0", "0.33.0"}),
    (MESSAGES, {"tool_choice": {"type": "tool", "name": "f"}}, {"0.32.0", "0.33.0"}),
    (MESSAGES, {"chat_template_kwargs": {"enable_thinking": True}}, {"0.19.1"}),
    (COMPLETIONS, {"prompt": [5, 6], **GRAMMAR}, {"0.19.1"}),
    (COMPLETIONS, {"prompt": [[2, 6], [5]], "response_format": {"type": "json_object"}}, {"0.19.1"}),
    (CHAT, {"tool_choice": "auto"}, set()),
    (CHAT, {"tool_choice": "none"}, set()),
    (CHAT, {"tool_choice": None}, set()),
    (RESPONSES, {**FORMAT, "stream": False}, set()),
    (RESPONSES, {"text": {"format": {"type": "text"}}, "stream": True}, set()),
    (RESPONSES, {"text": None, "stream": True}, set()),
    (MESSAGES, {"tool_choice": {"type": "auto"}, "thinking": {"type": "enabled"}}, set()),
    (f"{MESSAGES}/count_tokens", {"tool_choice": {"type": "any"}}, set()),
    (COMPLETIONS, {"prompt": [2, 6], **GRAMMAR}, set()),
    (COMPLETIONS, {"prompt": ["a", "b"], **GRAMMAR}, set()),
    (COMPLETIONS, {"prompt": [5, 6]}, set()),
]


@pytest.mark.parametrize("release", ["0.19.1", "0.32.0", "0.33.0"])
@pytest.mark.parametrize(("path", "body", "releases"), IGNORED)
def test_what_a_release_would_ignore_is_refused_there(path: str, body: Any, releases: set[str], release: str):
    engine = Engine()
    status, answer, _ = post(filters.Filter(engine, release), body, path)
    if release in releases:
        assert (status, engine.heard) == (400, [])
        assert f"vLLM {release}" in json.loads(answer)["error"]["message"]
    else:
        assert (status, answer) == (200, b"{}")


def test_forced_call_reaches_an_engine_with_another_parser():
    args = SimpleNamespace(tool_call_parser="hermes")
    app = SimpleNamespace(state=SimpleNamespace(args=args))
    engine = Engine()
    assert post(filters.Filter(engine, "0.32.0"), {"tool_choice": "required"}, app=app)[0] == 200
    args.tool_call_parser = "gemma4"
    assert post(filters.Filter(engine, "0.32.0"), {"tool_choice": "required"}, app=app)[0] == 400


def test_error_of_anthropic_route_shows_no_address():
    """CVE-2026-54236: an address tells where the code of the server is."""
    text = b'{"error": "cannot read <BytesIO object at 0x7f00deadbeef>"}'
    release, path = "0.19.1", MESSAGES
    hidden = post(filters.Filter(Engine(text, status=400), release), {}, path)[1]
    assert hidden == text.replace(b"7f00deadbeef", b"000000000000")
    keyed = filters.KeyedFilter(Engine(text, status=400), release, prometheus_client.CollectorRegistry())
    assert post(keyed, {}, path)[1] == hidden
    assert post(filters.Filter(Engine(text, status=400), "0.32.0"), {}, path)[1] == text
    assert post(filters.Filter(Engine(text), release), {}, path)[1] == text


def test_refusal_has_shape_of_anthropic_api():
    status, answer, _ = post(filters.Filter(Engine(), "0.19.1"), {"cache_salt": "a"}, "/v1/messages")
    assert (status, json.loads(answer)["type"]) == (400, "error")


def test_get_and_empty_body_pass():
    engine = Engine()
    app = filters.Filter(engine, "0.19.1")
    assert post(app, b"", "/reset")[0] == 200
    assert engine.heard == [b""]


class Keyed:
    """A KeyedFilter in front of an engine, and its figures."""

    def __init__(self, engine: Engine) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.app = filters.KeyedFilter(engine, "0.19.1", self.registry)

    def ask(self, body: Any, key: str = "dk-alice", limits: str = "", path: str = CHAT) -> Any:
        return post(self.app, body, path, {"x-deckard-key": key, "x-deckard-limits": limits})

    def figure(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"deckard_key_{name}", {"key": "alice", **labels})


USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
CHUNKS = (
    b'data: {"choices":[{"delta":{"content":"a \\"usage\\": {"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"b"}}]}\n\n',
)
LAST = b'data: {"choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n"
DONE = b"data: [DONE]\n\n"
STREAM = {"messages": [], "stream": True}


def test_whole_answer_is_counted_for_its_key():
    keyed = Keyed(Engine(json.dumps({"usage": USAGE}).encode()))
    assert keyed.ask({"messages": []})[0] == 200
    assert keyed.figure("requests_total", status="200") == 1
    assert keyed.figure("prompt_tokens_total") == 7
    assert keyed.figure("generation_tokens_total") == 3


def test_stream_is_counted_and_looks_as_asked_for():
    engine = Engine(*CHUNKS, LAST, DONE, kind="text/event-stream; charset=utf-8")
    keyed = Keyed(engine)
    answer = keyed.ask(STREAM)[1]
    assert json.loads(engine.heard[0])["stream_options"] == {"include_usage": True}
    assert answer == b"".join((*CHUNKS, DONE))
    assert keyed.figure("prompt_tokens_total") == 7
    assert keyed.figure("first_token_seconds_count") == 1


def test_stream_whose_usage_was_asked_for_keeps_it():
    engine = Engine(*CHUNKS, LAST, DONE, kind="text/event-stream")
    body = {**STREAM, "stream_options": {"include_usage": True}}
    assert Keyed(engine).ask(body)[1] == b"".join((*CHUNKS, LAST, DONE))
    assert json.loads(engine.heard[0]) == body


def test_options_of_a_stream_are_kept():
    engine = Engine(*CHUNKS, kind="text/event-stream")
    Keyed(engine).ask({**STREAM, "stream_options": {"continuous_usage_stats": True}})
    options = json.loads(engine.heard[0])["stream_options"]
    assert options == {"continuous_usage_stats": True, "include_usage": True}


def test_stream_that_broke_off_counts_its_events():
    keyed = Keyed(Engine(*CHUNKS, kind="text/event-stream"))
    keyed.ask(STREAM)
    assert keyed.figure("generation_tokens_total") == 2


@pytest.mark.parametrize(
    ("path", "events"),
    [
        (
            "/v1/messages",
            (
                b'event: message_start\ndata: {"message":{"usage":{"input_tokens":7,"output_tokens":0}}}\n\n',
                b'event: message_delta\ndata: {"usage":{"input_tokens":7,"output_tokens":3}}\n\n',
            ),
        ),
        (
            "/v1/responses",
            (
                b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":7,"output_tokens":3}}}\n\n',
            ),
        ),
    ],
)
def test_streams_of_other_apis_are_counted_and_unchanged(path: str, events: tuple[bytes, ...]):
    engine = Engine(*events, kind="text/event-stream")
    keyed = Keyed(engine)
    assert keyed.ask(STREAM, path=path)[1] == b"".join(events)
    assert json.loads(engine.heard[0]) == STREAM
    assert (keyed.figure("prompt_tokens_total"), keyed.figure("generation_tokens_total")) == (7, 3)


def test_refused_and_failed_requests_are_counted_by_status():
    keyed = Keyed(Engine(status=500))
    keyed.ask({"bad_words": ["a"]})
    keyed.ask({})
    assert keyed.figure("requests_total", status="400") == 1
    assert keyed.figure("requests_total", status="500") == 1


def test_own_key_is_neither_counted_nor_limited():
    keyed = Keyed(Engine())
    for _ in range(3):
        assert keyed.ask({}, "dk-deckard", "requests=1")[0] == 200
    assert keyed.ask({"bad_words": ["a"]}, "dk-deckard")[0] == 400
    assert b"alice" not in prometheus_client.generate_latest(keyed.registry)
    assert b'key="deckard"' not in prometheus_client.generate_latest(keyed.registry)


def test_requests_a_minute_are_limited_for_one_key():
    keyed = Keyed(Engine())
    statuses = [keyed.ask({}, limits="requests=2")[0] for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert keyed.ask({}, "dk-bob", "requests=2")[0] == 200
    _, body, headers = keyed.ask({}, limits="requests=2")
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(headers["retry-after"]) <= 60


def test_tokens_a_minute_are_limited():
    keyed = Keyed(Engine(json.dumps({"usage": USAGE}).encode()))
    assert [keyed.ask({}, limits="tokens=15")[0] for _ in range(3)] == [200, 200, 429]


def test_limit_opens_again_after_a_minute():
    use = filters.Use()
    use.begun.append(100.0)
    allowed = filters.limits("requests=1")
    assert use.refusal(allowed, 159.0).retry_after == 1
    assert use.refusal(allowed, 160.0) is None


def test_concurrent_requests_are_limited():
    use = filters.Use()
    use.running = 4
    assert use.refusal(filters.limits("concurrent=4"), 0.0).status == 429
    use.running = 3
    assert use.refusal(filters.limits("concurrent=4"), 0.0) is None


def test_built_file_is_the_planned_one(tmp_path: Path):
    path = request_filter.build(tmp_path / "folder" / request_filter.FILE)
    inode = path.stat().st_ino
    assert path.read_bytes() == request_filter.source()
    assert request_filter.build(path).stat().st_ino == inode
