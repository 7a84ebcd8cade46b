"""Two ASGI classes for vLLM's own `--middleware`: refuse what this release must not read, and count what keys use.

`Filter` refuses the request fields of published advisories that this release of vLLM is open to, and those that the
release would ignore in silence. `KeyedFilter` is for an engine behind the gateway, which sends the name and the limits
of a client's key as headers that no client can set. It also enforces the limits, and counts into the Prometheus
registry that vLLM serves at /metrics. No text of a request or of an answer is kept or logged.

A body is read whole and parsed by the parser that vLLM uses. Only the standard library, and prometheus_client, which
vLLM has.
"""

import importlib.metadata
import json
import math
import re
import time
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

MAX_BODY = 32 * 1024 * 1024  # as the gateway has it
MAX_PATTERN = 1000  # characters of a regular expression
# Repetitions that the {n,m} of one pattern make, multiplied: xgrammar of vLLM 0.19.1 compiles [a-z]{1,1000} in 14 s
# for 262,144 tokens (docs/validation/2026-11-30-endpoint.md), with no limit of time.
MAX_REPEAT = 256
MAX_MIN_TOKENS = 4096
MAX_PROMPTS = 256  # of a request of /v1/completions, each of which is a request to the engine
MAX_MEDIA = (
    32  # images and other media of a request; all are decoded before the length of the prompt is known
)
COUNT = "/v1/messages/count_tokens"
ROUTES_OF_ANTHROPIC = ("/v1/messages", COUNT)
OWN_KEY = "dk-deckard"  # rendering/gateway.py
CLIENT_LEFT = 499  # as nginx calls it
PARSER = "gemma4"  # of tool calls, to which the rules of forced calls apply
# supports_required_and_named in vllm/tool_parsers/gemma4_engine_tool_parser.py; vllm-project/vllm#50477 is of 0.26.0
FORCED_CALLS_IGNORED = "0.26.0"
# Run and read on 0.19.1 and 0.32.0 alone (docs/structured-output.md): between them nobody has looked.
OLD = "0.32.0"
BOS = 2  # of Gemma: tokenizer.json, added_tokens
ROUTES_WITH_OPTION = ("/v1/chat/completions", "/v1/completions")  # stream_options
MINUTE_S = 60.0
UNREADABLE = object()
MEDIA_NAMES = ("image", "input_image", "audio", "input_audio", "video", "input_video")
ADDRESS = re.compile(rb"0x([0-9a-fA-F]{6,})")
# The names of a limit of generated tokens: OpenAI's old and new, the Responses API's.
MOST_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Rule(NamedTuple):
    """A field of a request that an advisory is about. fixed: the first release that is not open to it, if any."""

    field: str
    advisory: str
    fixed: str | None


# Refused if it has a value: doctor/rules/advisories.yaml has what each is about, with its source.
REFUSED = (
    Rule("bad_words", "CVE-2026-93989", "0.30.0"),
    Rule("cache_salt", "CVE-2026-105752", "0.30.0"),
    Rule("allowed_token_ids", "GHSA-6cxc-2vcg-w5qc", "0.31.0"),
    Rule("mm_processor_kwargs", "GHSA-h3rc-6mm3-gc2m", "0.31.0"),
    Rule("media_io_kwargs", "CVE-2026-5497", "0.32.0"),
    Rule("chat_template", "CVE-2026-115911", "0.32.0"),
    Rule("prompt_embeds", "GHSA-x9pq-jx6q-p3qv", None),
)
TEMPLATE = Rule("chat_template_kwargs", "CVE-2026-115918", "0.32.0")
PROMPTS = Rule("prompt", "CVE-2026-73559", "0.26.0")
MEDIA = Rule("messages", "CVE-2026-130686", "0.33.0")
ADDRESSES = Rule("messages", "CVE-2026-54236", "0.23.1")
UUID = Rule("uuid", "GHSA-p92p-rxj5-7p2x", "0.31.0")
MIN_TOKENS = Rule("min_tokens", "GHSA-4xqp-c3mv-qff7", "0.31.0")
NO_TOKENS = Rule("max_tokens", "CVE-2026-93436", "0.30.0")
PATTERN = Rule("regex", "CVE-2026-55574", "0.24.0")


class Refusal(NamedTuple):
    """An answer in place of the engine's. code: OpenAI's; retry_after: in seconds."""

    status: int
    code: str
    message: str
    retry_after: int | None = None


class Filter:
    """Refuse unsafe requests. release: of vLLM; default: the installed one."""

    def __init__(self, app: Any, release: str | None = None) -> None:
        self.app = app
        self.release = _numbers(release or importlib.metadata.version("vllm"))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request: ASGI's interface."""
        if scope["type"] == "http" and scope["method"] == "POST":
            if scope["path"] in ROUTES_OF_ANTHROPIC and self._is_open(ADDRESSES):
                send = _without_addresses(send)
            await self.post(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def post(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request with a body."""
        body = await _read(receive)
        if body is None:
            return
        refusal = self.refusal(scope, body, _parsed(body))
        if refusal:
            await _refuse(scope, send, refusal)
        else:
            await self.app(scope, _replayed(body, receive), send)

    def refusal(self, scope: Any, body: bytes, document: Any) -> Refusal | None:
        """Return why a request is refused; None if the engine may read it."""
        if len(body) > MAX_BODY:
            return Refusal(413, "request_too_large", "the request has more than 32 MiB")
        if document is UNREADABLE:
            return Refusal(400, "bad_request", "the body is not JSON in UTF-8, or is nested too deeply")
        if not isinstance(document, dict):
            return None
        for reason in self._reasons(document):
            return Refusal(400, "unsafe_field", reason)
        for reason in self._ignored(scope, document):
            return Refusal(400, "unsupported_field", reason)
        return None

    def _reasons(self, document: dict[str, Any]) -> Iterator[str]:
        for rule in REFUSED:
            if self._is_open(rule) and document.get(rule.field) not in (None, "", [], {}):
                yield f"{rule.field} is not accepted: {self._why(rule)}"
        parts = list(_parts(document))
        if self._is_open(UUID) and any(part.get("uuid") is not None for part in parts):
            yield f"uuid of a part of a message is not accepted: {self._why(UUID)}"
        if self._is_open(MEDIA) and sum(map(_is_media, parts)) > MAX_MEDIA:
            yield f"a request has more than {MAX_MEDIA} images or other media: {self._why(MEDIA)}"
        arguments = document.get("chat_template_kwargs")
        if self._is_open(TEMPLATE) and isinstance(arguments, dict) and arguments.get("chat_template"):
            yield f"chat_template in chat_template_kwargs is not accepted: {self._why(TEMPLATE)}"
        prompt = document.get("prompt")
        if self._is_open(PROMPTS) and _is_list_of_prompts(prompt) and len(prompt) > MAX_PROMPTS:
            yield f"prompt has more than {MAX_PROMPTS} prompts: {self._why(PROMPTS)}"
        if self._is_open(PATTERN) and any(_is_costly(pattern) for pattern in _patterns(document)):
            yield (
                f"a regular expression has more than {MAX_PATTERN} characters, or its {{n,m}} make more than "
                f"{MAX_REPEAT} repetitions: {self._why(PATTERN)}"
            )
        yield from self._unsafe_numbers(document)

    def _unsafe_numbers(self, document: dict[str, Any]) -> Iterator[str]:
        if self._is_open(MIN_TOKENS):
            if not _is_within(document.get("min_tokens"), 0, MAX_MIN_TOKENS):
                yield f"min_tokens is not a whole number of at most {MAX_MIN_TOKENS}: {self._why(MIN_TOKENS)}"
            if document.get("min_tokens") and document.get("stop_token_ids"):
                # Run on 0.19.1: an id outside of the vocabulary ends the engine (MinTokensLogitsProcessor.apply).
                yield f"min_tokens with stop_token_ids is not accepted: {self._why(MIN_TOKENS)}"
        for field in MOST_TOKENS:
            if self._is_open(NO_TOKENS) and not _is_within(document.get(field), 1, None):
                yield f"{field} is not a whole number of at least 1: {self._why(NO_TOKENS)}"

    def _ignored(self, scope: Any, document: dict[str, Any]) -> Iterator[str]:
        """Yield what this release would ignore, so that a right request gets a wrong answer."""
        path, release = scope["path"], ".".join(map(str, self.release))
        choice = document.get("tool_choice")
        forced = _is_forced(choice) and path != COUNT and _parser_of_tools(scope) == PARSER
        if forced and _is_subset(choice):
            yield f"tool_choice allowed_tools is not accepted: vLLM {release} ignores it; leave out the other tools"
        elif forced and self.release >= _numbers(FORCED_CALLS_IGNORED):
            yield (
                f"a forced tool call (tool_choice) is not accepted: vLLM {release} treats it as auto for Gemma 4 "
                "(vllm-project/vllm#50477); use auto, or a JSON schema as response_format"
            )
        if self.release >= _numbers(OLD):
            return
        constrained = any(document.get(field) for field in ("response_format", "structured_outputs"))
        if path == "/v1/completions" and constrained and _lacks_bos(document.get("prompt")):
            yield f"a grammar with a prompt of token ids that lacks <bos> is not accepted: vLLM {release} ignores it"
        constrained = constrained or forced or _has_format(document)
        if path == "/v1/responses" and document.get("stream") and constrained:
            yield f"a stream with a grammar or a forced call is not accepted: vLLM {release} breaks it off"
        if path in ROUTES_OF_ANTHROPIC and document.get("chat_template_kwargs"):
            yield f"chat_template_kwargs is not accepted on this route: vLLM {release} ignores it"

    def _is_open(self, rule: Rule) -> bool:
        return rule.fixed is None or self.release < _numbers(rule.fixed)

    def _why(self, rule: Rule) -> str:
        release = ".".join(map(str, self.release))
        return f"vLLM {release} is open to {rule.advisory}"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


async def _read(receive: Any) -> bytes | None:
    """Return the body, or the first part of one that is too large; None if the client has left."""
    parts, size = [], 0
    while size <= MAX_BODY:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body"):
            break
    return b"".join(parts)


def _parsed(body: bytes) -> Any:
    """Return the body's JSON; UNREADABLE if it is none. Of a key that stands twice the last counts, as in vLLM."""
    try:
        return json.loads(body.decode()) if body else None
    except (ValueError, RecursionError):
        return UNREADABLE


def _replayed(body: bytes, receive: Any) -> Any:
    """Return a `receive` that returns the body first."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return waiting.pop() if waiting else await receive()

    return again


async def _refuse(scope: Any, send: Any, refusal: Refusal) -> None:
    """Answer in the shape of the route's API."""
    too_many = refusal.status == 429
    kind = "rate_limit_error" if too_many else "invalid_request_error"
    if scope["path"] in ROUTES_OF_ANTHROPIC:
        answer: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": refusal.message}}
    else:
        kind = "requests" if too_many else kind
        error = {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}
        answer = {"error": error}
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_within(value: Any, least: int, most: int | None) -> bool:
    """Return True for no value, and for a whole number between two. Text is refused: vLLM would read it as a number."""
    if value is None:
        return True
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return value >= least and (most is None or value <= most)


def _is_forced(choice: Any) -> bool:
    """Return True for a tool_choice that lets the model choose less than `auto` does; Anthropic's is an object."""
    if isinstance(choice, dict):
        return choice.get("type") not in ("auto", "none")
    return choice == "required"


def _is_subset(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("type") == "allowed_tools"


def _parser_of_tools(scope: Any) -> str:
    """Return the engine's --tool-call-parser; ours where the application does not say it."""
    args = getattr(getattr(scope.get("app"), "state", None), "args", None)
    return getattr(args, "tool_call_parser", PARSER)


def _has_format(document: dict[str, Any]) -> bool:
    """Return True if the Responses API is asked for a format of its text."""
    text = document.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    return isinstance(form, dict) and form.get("type") != "text"


def _lacks_bos(prompt: Any) -> bool:
    """Return True for token ids, or a list of such prompts, of which one does not start with <bos>."""
    if not isinstance(prompt, list) or not prompt:
        return False
    if isinstance(prompt[0], list):
        return any(_lacks_bos(each) for each in prompt)
    return isinstance(prompt[0], int) and prompt[0] != BOS


def _parts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a request, and the parts of their contents."""
    waiting = [document.get("messages"), document.get("input")]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            yield item
            waiting.append(item.get("content"))


def _is_media(part: dict[str, Any]) -> bool:
    """Return True for an image, audio or video: image_url, input_image, image_pil ... or the key alone, as in vLLM."""
    names = [part.get("type"), *part]
    return any(isinstance(name, str) and name.startswith(MEDIA_NAMES) for name in names)


def _is_list_of_prompts(prompt: Any) -> bool:
    """Return True for several prompts; a list of numbers is one prompt of token ids."""
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], (str, list))


def _without_addresses(send: Any) -> Any:
    """Return a `send` that writes zeros over the addresses of memory in the text of an error."""
    failed = False

    async def passing(message: Any) -> None:
        nonlocal failed
        if message["type"] == "http.response.start":
            failed = message["status"] >= 400
        elif failed and message["type"] == "http.response.body":
            hidden = ADDRESS.sub(lambda found: b"0x" + b"0" * len(found[1]), message.get("body", b""))
            message = {**message, "body": hidden}
        await send(message)

    return passing


def _patterns(document: dict[str, Any]) -> Iterator[str]:
    """Yield each regular expression that a grammar is made of: of structured_outputs, and of JSON schemas."""
    waiting: list[Any] = [
        document.get(field) for field in ("structured_outputs", "response_format", "text", "tools")
    ]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            for name in ("regex", "pattern"):
                if isinstance(item.get(name), str):
                    yield item[name]


def _is_costly(pattern: str) -> bool:
    """Return True for a regular expression that is too long, or whose repetitions are too many."""
    repeats = 1
    for least, most in re.findall(r"\{(\d+)(?:,(\d*))?\}", pattern):
        repeats *= max(int(least[:9]), int((most or "1")[:9]), 1)
    return len(pattern) > MAX_PATTERN or repeats > MAX_REPEAT


class Limits(NamedTuple):
    """The limits of a key; None: none."""

    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None


@lru_cache(maxsize=1024)
def limits(header: str) -> Limits:
    """Parse the gateway's header: `requests=60 tokens=10000 concurrent=4`, each of them or none."""
    found = dict(re.findall(r"(requests|tokens|concurrent)=(\d+)", header))
    return Limits(**{name: int(number) for name, number in found.items()})


class Use:
    """What a key has used in the last minute, and uses now."""

    def __init__(self) -> None:
        self.begun: deque[float] = deque()
        self.tokens: deque[tuple[float, int]] = deque()
        self.running = 0

    def refusal(self, allowed: Limits, now: float) -> Refusal | None:
        """Return why a request that begins now is one too many; None if it is not."""
        while self.begun and self.begun[0] <= now - MINUTE_S:
            self.begun.popleft()
        while self.tokens and self.tokens[0][0] <= now - MINUTE_S:
            self.tokens.popleft()
        if allowed.concurrent is not None and self.running >= allowed.concurrent:
            return _too_many(f"{allowed.concurrent} requests at the same time", 1)
        if allowed.requests is not None and len(self.begun) >= allowed.requests:
            first = self.begun[0] if self.begun else now
            return _too_many(f"{allowed.requests} requests a minute", first + MINUTE_S - now)
        if allowed.tokens is not None and sum(count for _, count in self.tokens) >= allowed.tokens:
            first = self.tokens[0][0] if self.tokens else now
            return _too_many(f"{allowed.tokens} tokens a minute", first + MINUTE_S - now)
        return None


def _too_many(limit: str, wait_s: float) -> Refusal:
    message = f"this key is limited to {limit}"
    return Refusal(429, "rate_limit_exceeded", message, max(1, math.ceil(wait_s)))


class Meter:
    """Reads the tokens of an answer while it passes.

    hides: the client did not ask for the last event of a stream, which holds nothing but the tokens.
    """

    def __init__(self, *, hides: bool) -> None:
        self.hides = hides
        self.status = 0
        self.streams = False
        self.first_at: float | None = None
        self.prompt = self.generated = self.events = 0
        self.whole: list[bytes] = []

    def start(self, message: Any) -> None:
        """Read status and type."""
        self.status = message["status"]
        headers = dict(message.get("headers", ()))
        self.streams = headers.get(b"content-type", b"").startswith(b"text/event-stream")

    def body(self, body: bytes) -> bytes:
        """Read a piece of the answer, and return what the client gets of it."""
        if self.status != 200 or not body:
            return body
        if not self.streams:
            self.whole.append(body)
            return body
        if self.first_at is None:
            self.first_at = time.monotonic()
        self.events += body.count(b"data: {")
        if b'"usage"' not in body:
            return body
        events = body.split(b"\n\n")
        return b"\n\n".join(event for event in events if not self._is_hidden(event))

    def _is_hidden(self, event: bytes) -> bool:
        """Read the tokens that an event holds. Return True if the client gets no such event."""
        _, found, data = event.partition(b"data: ")
        document = _parsed(data) if found else None
        if not isinstance(document, dict):
            return False
        # The Responses API has them in `response`, Anthropic's first event in `message`.
        for holder in (document, document.get("response"), document.get("message")):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                self.read(holder["usage"])
        return self.hides and document.get("choices") == [] and "usage" in document

    def read(self, usage: dict[str, Any]) -> None:
        """Read OpenAI's or Anthropic's object of tokens; the numbers of a stream grow."""
        prompt = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        generated = usage.get("completion_tokens") or usage.get("output_tokens") or 0
        self.prompt, self.generated = max(self.prompt, prompt), max(self.generated, generated)

    def end(self) -> None:
        """Read the tokens of a whole answer. A stream that broke off made a token an event at least."""
        document = _parsed(b"".join(self.whole)) if self.whole else None
        if isinstance(document, dict) and isinstance(document.get("usage"), dict):
            self.read(document["usage"])
        if self.streams and not self.generated:
            self.generated = self.events


class KeyedFilter(Filter):
    """Also enforce the limits of each key, and count what it uses, for an engine that only the gateway reaches."""

    def __init__(self, app: Any, release: str | None = None, registry: Any = None) -> None:
        super().__init__(app, release)
        import prometheus_client as prometheus  # vLLM has it

        registry = registry or prometheus.REGISTRY
        self.uses: dict[str, Use] = {}
        name, key = "deckard_key_", ["key"]
        self.requests = prometheus.Counter(
            f"{name}requests",
            "Requests of a key, by the status of the answer.",
            [*key, "status"],
            registry=registry,
        )
        self.prompt = prometheus.Counter(
            f"{name}prompt_tokens", "Tokens of a key's prompts.", key, registry=registry
        )
        self.generated = prometheus.Counter(
            f"{name}generation_tokens", "Tokens generated for a key.", key, registry=registry
        )
        self.first = prometheus.Histogram(
            f"{name}first_token_seconds",
            "Time from a key's request to the first event of its stream.",
            key,
            registry=registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
        )

    async def post(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request of a key; those of the tool itself (OWN_KEY) have no limit and are not counted."""
        headers = dict(scope["headers"])
        key = headers.get(b"x-deckard-key", b"-").decode("latin-1")
        if key == OWN_KEY:
            await super().post(scope, receive, send)
            return
        key = key.removeprefix("dk-")
        use, begun = self.uses.setdefault(key, Use()), time.monotonic()
        refusal = use.refusal(limits(headers.get(b"x-deckard-limits", b"").decode("latin-1")), begun)
        use.running += 1
        meter = Meter(hides=False)
        try:
            if refusal:
                meter.status = refusal.status
                await _refuse(scope, send, refusal)
            else:
                use.begun.append(begun)
                await self._metered(scope, receive, send, meter)
        finally:
            use.running -= 1
            self._count(key, use, meter, begun)

    async def _metered(self, scope: Any, receive: Any, send: Any, meter: Meter) -> None:
        body = await _read(receive)
        if body is None:
            return
        document = _parsed(body)
        refusal = self.refusal(scope, body, document)
        if refusal:
            meter.status = refusal.status
            await _refuse(scope, send, refusal)
            return
        if (
            scope["path"] in ROUTES_WITH_OPTION
            and isinstance(document, dict)
            and document.get("stream") is True
        ):
            body = self._asking_for_usage(body, document, meter)
            headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}

        async def passing(message: Any) -> None:
            if message["type"] == "http.response.start":
                meter.start(message)
            elif message["type"] == "http.response.body":
                message = {**message, "body": meter.body(message.get("body", b""))}
            await send(message)

        await self.app(scope, _replayed(body, receive), passing)

    def _asking_for_usage(self, body: bytes, document: dict[str, Any], meter: Meter) -> bytes:
        """Return the body with the option by which a stream ends with its tokens.

        The option is appended, so that a large body is not written anew: of a key that stands twice the last counts.
        """
        options = document.get("stream_options") or {}
        if not isinstance(options, dict) or options.get("include_usage"):
            return body
        meter.hides = True
        added = json.dumps({**options, "include_usage": True}).encode()
        return body.rstrip()[:-1] + b',"stream_options":' + added + b"}"

    def _count(self, key: str, use: Use, meter: Meter, begun: float) -> None:
        meter.end()
        self.requests.labels(key, str(meter.status or CLIENT_LEFT)).inc()
        self.prompt.labels(key).inc(meter.prompt)
        self.generated.labels(key).inc(meter.generated)
        if meter.first_at is not None:
            self.first.labels(key).observe(meter.first_at - begun)
        if meter.prompt or meter.generated:
            use.tokens.append((time.monotonic(), meter.prompt + meter.generated))
