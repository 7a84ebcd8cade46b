#!/usr/bin/env python3
"""A substitute for `vllm serve` with a log, a list of models, one answer and a worker. FAKE_… sets its mode."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def completion(question: dict[str, Any]) -> dict[str, Any]:
    """Answer with a token for each byte of the prompt, and log-probabilities that depend on the bytes before it.

    FAKE_SHIFT moves them, as another model does.
    """
    prompt = question["prompt"].encode()
    choice: dict[str, Any] = {"text": "x", "prompt_token_ids": list(prompt)}
    if "prompt_logprobs" in question:
        shift = float(os.environ.get("FAKE_SHIFT", "0"))
        choice["prompt_logprobs"] = [
            None,
            *(place(prompt, number, shift) for number in range(1, len(prompt))),
        ]
    used = {"prompt_tokens": len(prompt), "completion_tokens": question["max_tokens"]}
    return {"choices": [choice], "usage": used}


def place(prompt: bytes, number: int, shift: float) -> dict[str, Any]:
    """Return the log-probabilities of four tokens and of the byte itself."""
    seed = zlib.crc32(prompt[:number])
    weights = {token: 1.0 + (seed >> (8 * rank)) % 256 / 64 for rank, token in enumerate((1, 2, 3, 4))}
    weights[prompt[number]] = 4.0
    weights[1] *= math.exp(shift)
    total = sum(weights.values()) * 1.1  # the rest belongs to other tokens
    return {str(token): {"logprob": math.log(weight / total)} for token, weight in weights.items()}


METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 2
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
"""


class Models(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        if self.path == "/metrics" and "FAKE_METRICS" in os.environ:
            self.send_text(METRICS)
            return
        self.send({"data": [{"id": name} for name in self.server.names]})

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if os.environ.get("FAKE_HEARD") and "messages" in question:  # a line each
            with Path(os.environ["FAKE_HEARD"]).open("a") as heard:
                heard.write(question["messages"][-1]["content"] + "\n")
        time.sleep(float(os.environ.get("FAKE_DELAY_S", "0")))
        if question.get("stream"):
            self.stream(question)
            return
        if self.path.endswith("/v1/completions"):
            self.send(completion(question))
            return
        if self.headers.get("X-data-parallel-rank", "none") == os.environ.get("FAKE_HUNG_RANK"):
            time.sleep(600)
        self.send({"choices": [{"message": {"content": "ready"}, "finish_reason": "stop"}]})

    def stream(self, question: dict[str, object]) -> None:
        """Answer with the messages that were sent, as JSON in two pieces; the second waits for the file FAKE_HOLD."""
        text = json.dumps(question["messages"])
        finish = "length" if question["max_tokens"] == 1 else "stop"
        self.send_response(200)
        self.end_headers()
        for piece, end in ((text[:5], None), (text[5:], finish)):
            while end and "FAKE_HOLD" in os.environ and not Path(os.environ["FAKE_HOLD"]).exists():
                time.sleep(0.02)
            event = {"choices": [{"delta": {"content": piece}, "finish_reason": end}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def send(self, answer: object) -> None:
        self.send_text(json.dumps(answer))

    def send_text(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    names: list[str]

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as vLLM does
        super().server_bind()


class SocketServer(Server):
    address_family = socket.AF_UNIX
    request_queue_size = 2048  # as uvicorn has it

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self):
        return self.socket.accept()[0], ("", 0)


def option(name: str) -> list[str]:
    values: list[str] = []
    for word in sys.argv[sys.argv.index(name) + 1 :]:
        if word.startswith("--"):
            break
        values.append(word)
    return values


def main() -> None:
    mode = os.environ.get("FAKE_MODE", "serve")
    print(f"fake server {os.getpid()} starts as {mode}", flush=True)
    if mode == "crash":
        print("RuntimeError: it is made to fail", file=sys.stderr, flush=True)
        sys.exit(3)
    if mode == "quit":
        sys.exit(0)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A worker in a session of its own that ignores SIGTERM: only SIGKILL to its pid ends it.
    worker = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
    print(f"worker {process.pid}", flush=True)
    for number in range(int(os.environ.get("FAKE_LINES", "0"))):
        print(f"line {number} " + "x" * 100, flush=True)
    for name in sorted(os.environ):
        print(f"variable {name}", flush=True)
    server: Server
    if "--uds" in sys.argv:
        server = SocketServer(option("--uds")[0], Models)  # type: ignore[arg-type]  # an AF_UNIX address is a path
    else:
        server = Server((option("--host")[0], int(option("--port")[0])), Models)
    server.names = option("--served-model-name")
    print("Application startup complete.", flush=True)
    if mode == "late-crash":
        time.sleep(0.3)
        os._exit(7)
    server.serve_forever()


main()
