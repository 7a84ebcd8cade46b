"""Answers of a server in a container to a neighbour, past the gateway: python probe_inside.py HOST:PORT.

It is read by the container's Python on its standard input, and so stands alone; the answers are JSON on stdout.
"""

import http.client
import json
import sys

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg"
    "=="
)
# Documentation, development, profiling, adapters (entrypoints/serve/ of 0.19.1), and two that are there.
ROUTES = (
    "GET /docs", "GET /redoc", "GET /openapi.json", "POST /collective_rpc", "POST /sleep", "POST /wake_up",
    "GET /server_info", "POST /reset_prefix_cache", "GET /tokenizer_info", "POST /start_profile", "POST /stop_profile",
    "POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter", "POST /pause", "GET /version", "GET /v1/models",
)  # fmt: skip


def ask(method: str, path: str, body: object = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
    data = json.dumps(body or {}) if method == "POST" else None
    connection.request(method, path, data, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


def chat(content: object, **more: int) -> tuple[int, str]:
    messages = [{"role": "user", "content": content}]
    body = {"model": "tiny-gemma4", "max_tokens": 2, "messages": messages, **more}
    return ask("POST", "/v1/chat/completions", body)[:2]


def image(url: str) -> tuple[int, str]:
    return chat([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}])


answers = {
    "routes": {f"{method} {path}": ask(method, path)[0] for method, path in map(str.split, ROUTES)},
    "headers of another origin": ask("GET", "/v1/models", Origin="http://evil.example")[2],
    "two answers": chat("Hello?", n=2),
    "65 answers": chat("Hello?", n=65),
    "image here": image(PIXEL),
    "image elsewhere": image("http://127.0.0.1:9/x.png"),
    "image of the server": image("file:///etc/passwd"),
}
json.dump(answers, sys.stdout)
