"""The requests of `qualify` against servers that answer wrongly."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deckard_deploy.operations import client_table


class Wrong(BaseHTTPRequestHandler):
    """Answers every request with one text, whatever was asked."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"content": "Hello", "tool_calls": [{"function": {"arguments": "{}"}}]}
        body = json.dumps({"choices": [{"message": message}], "usage": {"completion_tokens": 0}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def wrong_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_wrong_answers_are_named(wrong_server: str) -> None:
    found = client_table.ask_all(wrong_server)
    assert found.pop("chat") == ""  # there is a text
    assert [name for name, problem in found.items() if not problem] == []
    assert found["structured output"] == "'Hello' is none of the choices"
    assert found["bad grammar"] == "status 200"


def test_dead_server_is_never_ready() -> None:
    assert client_table.wait_until_ready("http://127.0.0.1:9", lambda: False, 60) is False
