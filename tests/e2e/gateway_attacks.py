"""Raw requests without a valid key that must not get an answer: Host headers, spellings of paths, framing, keys."""

import contextlib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

CHAT = b'{"model": "tiny-gemma4", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 1}'
COMPLETION = b'{"model": "tiny-gemma4", "prompt": "Hello?", "max_tokens": 1}'
RESPONSE = b'{"model": "tiny-gemma4", "input": "Hello?", "max_output_tokens": 1}'
MESSAGE = b'{"model": "tiny-gemma4", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello?"}]}'
ROUTES = (
    ("GET", "/v1/models", b""),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/completions", COMPLETION),
    ("POST", "/v1/responses", RESPONSE),
    ("POST", "/v1/messages", MESSAGE),
    ("POST", "/v1/messages/count_tokens", MESSAGE),
    ("GET", "/metrics", b""),
)
# GHSA-94f4-hr76-p5j6: starlette makes the path that vLLM 0.19.1 judges from the Host header.
HOSTS = ("localhost/x?", "localhost/", "localhost#")
PATHS = (
    "//v1/models", "/v1//models", "///v1///models", "/./v1/models", "/v1/./models", "/x/../v1/models",
    "/v1/../v1/models", "/v1/x/../models", "/health/../v1/models", "/v1/health/live/../../models",
    "/v1/health/live/..%2f..%2fmodels", "/v1/health/ready/%2e%2e/%2e%2e/models", "/v1/%2e/models", "/%2e%2e/v1/models",
    "/v1%2fmodels", "/%2fv1/models", "%2fv1%2fmodels", "/v1/%6dodels", "/%76%31/models", "/%2576%2531/models",
    "/v1/models/", "/v1/models/.", "/v1/models%20", "/v1/models%09", "/v1/models%00", "/v1/models%0a", "/v1/models%0d",
    "/v1/models;x=1", "/v1;/models", "/v1/models?", "/v1/models?x=/v1/health/live", "/v1/models#", "/v1/models%23",
    "/v1/models%3f", "/V1/models", "/v1/MODELS", "/v1\\models", "/v1/models\\", "\\v1\\models", "/v1/models.json",
    "/v1/models/tiny-gemma4", "/v1/%c0%afmodels", "/v1/%ef%bc%8fmodels", "/v1/mod%65ls?key=1", "/./health", "/health/",
    "//health", "/%68ealth", "//metrics", "/metrics/", "/metrics?x", "/./metrics", "/%6detrics", "//version",
    "/version", "/./version", "/v1/health/live/../../../version", "/load", "/tokenize", "//tokenize", "/detokenize",
    "/invocations", "/ping", "/pause", "/resume", "/is_paused", "/sleep", "/wake_up", "/docs", "/openapi.json",
    "/v1/health/live%2f..%2f..%2f..%2fload", "/v1/responses/resp_1", "/v1/responses/resp_1/cancel",
    "/v1/responses/..%2fmodels", "/v1/health/live?/../../models", "/nginx.conf", "/access.conf", "/503", "/error",
    "/..%2f..%2fgateway/access.conf", "/v1/messages?beta=true", "/v1/messages/", "/v1//messages",
    "/v1/messages/batches",
    "/v1/messages/../models", "/v1/messages%2fcount_tokens", "/v1/models/..%2fmodels", "/v1/models/../../metrics",
    "/v1/models/tiny-gemma4?x=/v1/health/live", "/models", "/alive", "/none", "/upstream", "/@models",
    "*", "", " ", "http:", "http://", "v1/models",
)  # fmt: skip
ABSOLUTE = (
    "http://localhost/v1/models", "http://localhost:1/v1/models", "http://evil.example/v1/models",
    "https://localhost/v1/models", "http://localhost/v1/health/live/../../models", "http://localhost//v1/models",
    "http://u:p@localhost/v1/models", "http://localhost/x?/v1/models", "http://[::1]/v1/models",
    "HTTP://LOCALHOST/v1/models",
    "unix:/v1/models", "file:///v1/models", "//localhost/v1/models", "http:/v1/models", "http:///v1/models",
    "http://localhost#/v1/models",
)  # fmt: skip
METHODS = (
    "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "GeT", "GETT", "POST", "PRI",
    "G\x00ET", "GET\t",
)  # fmt: skip
VERSIONS = (
    "",
    "HTTP/0.9",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/9.9",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/01.1",
    "XTP/1.1",
)
HEADERS = (
    "X-Original-URL: /v1/models", "X-Rewrite-URL: /v1/models", "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1",
    "X-Forwarded-Host: localhost", "X-Forwarded-Proto: https", "Forwarded: for=127.0.0.1;host=localhost",
    "X-HTTP-Method-Override: GET", "X-Accel-Redirect: /v1/models", "X-Api-Key: x", "Api-Key: x", "Cookie: key=x",
    "Upgrade: websocket\r\nConnection: upgrade",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Connection: Authorization", "Connection: close, Host", "Expect: 100-continue", "Via: 1.1 localhost",
    "Proxy-Authorization: Bearer x", "Origin: http://localhost", "Sec-Fetch-Site: same-origin", "Range: bytes=0-",
)  # fmt: skip
KEYS = (
    "Authorization: Bearer ", "Authorization: Bearer x", "Authorization: Bearer dk-alice-" + 64 * "0",
    "Authorization: Bearer dk-deckard-" + 64 * "0", "Authorization: bearer dk-alice-" + 64 * "0",
    "Authorization: Basic eDp5",
    "Authorization: dk-alice", "Authorization: Bearer dk-alice", "Authorization: Bearer null",
    "Authorization: Bearer 1",
    "Authorization: Bearer dk--" + 64 * "0", "Authorization: Bearer dk-default-" + 64 * "0",
    "Authorization: Bearer dk-alice-" + 64 * "0" + ",1", "Authorization: Bearer *", "Authorization: Bearer ~.*",
    "Authorization: Bearer x\r\nAuthorization: Bearer y", "Authorization :Bearer x", "Authorization\t: Bearer x",
    "Authorization_: Bearer x", "Authorization: Bearer x\r\n folded", "Authorization:\r\n Bearer x",
    "X-Api-Key: dk-alice-" + 64 * "0", "x-api-key: Bearer dk-alice-" + 64 * "0", "Api-Key: dk-deckard-" + 64 * "0",
    "x-api-key: dk-default-" + 64 * "0", "x-api-key: |dk-alice-" + 64 * "0" + "|", "x-api-key: ~.*", "x-api-key:",
    "x-api-key: dk-alice-" + 64 * "0" + "\r\nx-api-key: dk-bob-" + 64 * "0", "X_Api_Key: dk-alice-" + 64 * "0",
    "Authorization: Bearer dk-alice-" + 64 * "0" + "|dk-alice-" + 64 * "0" + "|", "x-api-key: " + 9000 * "x",
    "Authorization: Bearer dk-alice-" + 64 * "0" + "\r\nx-api-key: dk-alice-" + 64 * "1",
    "Authorization: Bearer \x00", "authorization: Bearer " + 9000 * "x", "Authorization: Digest x", "Authorization:",
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """Bytes for a socket, and what they try."""

    name: str
    data: bytes


def request(
    method: str,
    target: str,
    *,
    host: str = "localhost",
    version: str = "HTTP/1.1",
    more: str = "",
    body: bytes = b"",
) -> bytes:
    """One request as these words say, right or wrong."""
    lines = [
        f"{method} {target} {version}".rstrip() if version == "" else f"{method} {target} {version}",
        f"Host: {host}",
    ]
    lines += [more] if more else []
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def framing() -> list[Attack]:
    """A second request hidden in the first one's body or headers."""
    hidden = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    length, line = len(hidden), "\r\n"
    heads = {
        "length and chunks": f"Content-Length: {length}\r\nTransfer-Encoding: chunked",
        "chunks and length": f"Transfer-Encoding: chunked\r\nContent-Length: {length}",
        "two lengths": f"Content-Length: 0\r\nContent-Length: {length}",
        "length list": f"Content-Length: 0, {length}",
        "length with plus": f"Content-Length: +{length}",
        "negative length": f"Content-Length: -{length}",
        "hexadecimal length": f"Content-Length: {length:#x}",
        "length with space": f"Content-Length : {length}",
        "length with underscore": f"Content_Length: {length}",
        "long length": "Content-Length: 99999999999999999999999",
        "space before colon": "Transfer-Encoding : chunked",
        "tab": "Transfer-Encoding:\tchunked",
        "vertical tab": "Transfer-Encoding: \x0bchunked",
        "two encodings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "encoding list": "Transfer-Encoding: identity, chunked",
        "unknown encoding": "Transfer-Encoding: xchunked",
        "encoding in quotes": 'Transfer-Encoding: "chunked"',
        "encoding with underscore": "Transfer_Encoding: chunked",
        "capital encoding": "Transfer-Encoding: CHUNKED",
        "folded encoding": "Transfer-Encoding:\r\n chunked",
        "bare line feed": f"X: y\nContent-Length: {length}",
        "bare carriage return": f"X: y\rContent-Length: {length}",
        "no header": "",
    }
    attacks = []
    for method, target in (("POST", "/v1/chat/completions"), ("GET", "/v1/health/live")):
        for name, head in heads.items():
            start = (
                f"{method} {target} HTTP/1.1{line}Host: localhost{line}{head + line if head else ''}{line}"
            )
            for what, body in (("end", f"0{line}{line}{hidden}"), ("plain", hidden)):
                attacks.append(Attack(f"framing: {method} {name}, {what}", (start + body).encode("latin-1")))
    return attacks


def attacks() -> list[Attack]:
    """All of them, in the same order each time."""
    found = [
        Attack(f"host {host} on {path}", request(method, path, host=host, body=body))
        for host in HOSTS
        for method, path, body in ROUTES
    ]
    found += [Attack(f"path {path!r}", request("GET", path)) for path in (*PATHS, *ABSOLUTE)]
    found += [Attack(f"path {path!r} by POST", request("POST", path, body=CHAT)) for path in PATHS[:24]]
    found += [Attack(f"method {method!r}", request(method, "/v1/models")) for method in METHODS]
    found += [
        Attack(f"version {version!r}", request("GET", "/v1/models", version=version)) for version in VERSIONS
    ]
    found += [
        Attack(f"header {more[:40]!r}", request("GET", "/v1/models", more=more)) for more in (*HEADERS, *KEYS)
    ]
    return [*found, *framing()]


def answers(
    address: tuple[str, int], data: bytes, *, patience_s: float = 2.0, tls: ssl.SSLContext | None = None
) -> bytes:
    """Everything that comes back until the end, or until nothing has come for `patience_s`."""
    received = b""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(address, timeout=10))
        if tls:
            connection = stack.enter_context(tls.wrap_socket(connection, server_hostname="localhost"))
        connection.settimeout(patience_s)
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
    return received


# What only a key may have: figures, a list of models, or a completion.
ANSWERS = (b'"object":"list"', b'"object": "list"', b'"object":"chat.completion"', b'"object":"text_completion"',
           b'"object":"response"', b'"input_tokens"',
           b'"object": "model"', b"vllm:", b'"version":', b'"tokens":', b"server_load", b"openapi")  # fmt: skip


def got_through(
    address: tuple[str, int],
    tried: list[Attack],
    *,
    patience_s: float = 0.7,
    marks: tuple[bytes, ...] = ANSWERS,
    tls: ssl.SSLContext | None = None,
) -> list[str]:
    """The attacks that were answered with one of the marks."""

    def one(attack: Attack) -> str | None:
        said = answers(address, attack.data, patience_s=patience_s, tls=tls)
        return attack.name if _has(said, marks) else None

    with ThreadPoolExecutor(8) as pool:
        return [name for name in pool.map(one, tried) if name]


def _has(said: bytes, marks: tuple[bytes, ...]) -> bool:
    return any(mark in said for mark in marks)
