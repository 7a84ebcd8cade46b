"""The probe against small real servers on loopback."""

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deckard_deploy.catalog.specs import Task
from deckard_deploy.startup.readiness import Outcome, Readiness, probe
from deckard_deploy.system.http import EndpointCredentials

MODELS = {"data": [{"id": "deckard-31b"}, {"id": "launch-7c1e"}]}


def answer(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}


class Server(ThreadingHTTPServer):
    """A server that answers GET with `models` and POST with `chat`, each a (status, body, headers)."""

    daemon_threads = True

    allow_reuse_port = True  # as vLLM: a second server may bind the same port

    def __init__(self, models: Any, chat: Any, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)
        self.replies = {"GET": models, "POST": chat}
        self.knows: set[str] = set()  # models that it answers for; empty: any
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply("GET", None)

    def do_POST(self) -> None:
        self._reply("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, method: str, body: Any) -> None:
        self.server.seen.append((self.path, dict(self.headers), body))
        status, content, headers = self.server.replies[method]
        if body and self.server.knows and body["model"] not in self.server.knows:
            status = 404
        if content == "hang":
            self.server.released.wait(30)
            return
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(sent)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)


@contextmanager
def serving(
    models: Any = MODELS, chat: Any = None, address: tuple[str, int] = ("127.0.0.1", 0), **statuses: int
) -> Iterator[Server]:
    chat = answer(content="ready") if chat is None else chat
    server = Server(
        (statuses.get("models_status", 200), models, {}),
        (statuses.get("chat_status", 200), chat, {}),
        address,
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server: Server, **options: Any) -> Readiness:
    return probe(server.url, launch_id="launch-7c1e", served_name="deckard-31b", **options)


def test_own_launch_with_text_is_ready():
    with serving() as server:
        found = ask(server)
        (_, _, _), (path, _, question) = server.seen
    assert found.outcome is Outcome.READY
    assert path == "/v1/chat/completions"
    assert (question["model"], "temperature" in question, "stream" in question) == (
        "launch-7c1e",
        False,
        False,
    )


def test_reasoning_counts_as_text():
    with serving(chat=answer(content=None, reasoning="The user wants")) as server:
        assert ask(server).outcome is Outcome.READY


def test_closed_port_means_loading():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening, as vLLM is while it loads
        found = probe(f"http://127.0.0.1:{bound.getsockname()[1]}/v1", launch_id="a", served_name="b")
    assert found.outcome is Outcome.LOADING
    assert not found.final


def test_connection_closed_unanswered_means_loading():
    """docker's userland proxy accepts a connection, then finds no server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept_and_close() -> None:
            connection, _ = listener.accept()
            connection.close()

        closer = threading.Thread(target=accept_and_close)
        closer.start()
        found = probe(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", launch_id="a", served_name="b")
        closer.join()
    assert found.outcome is Outcome.LOADING


@pytest.mark.parametrize(
    ("models", "missing"),
    [
        ({"data": [{"id": "deckard-31b"}]}, "launch-7c1e"),
        ({"data": [{"id": "launch-7c1e"}]}, "deckard-31b"),
        ({"data": [{"id": "llama"}]}, "deckard-31b, launch-7c1e"),
        ({"data": [{"id": ["launch-7c1e"]}, "deckard-31b", None]}, "deckard-31b, launch-7c1e"),
    ],
)
def test_missing_names_mean_other_server(models: Any, missing: str):
    with serving(models) as server:
        found = ask(server)
        assert len(server.seen) == 1, "it must not be asked to generate"
    assert found.outcome is Outcome.OTHER_SERVER
    assert found.detail.endswith(f"does not list {missing}")
    assert found.final


@pytest.mark.parametrize(
    "models",
    [
        b"<html>hello</html>",
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        b"[" + b"1," * (1 << 20),
        [],
        {"data": {}},
        {"object": "list"},
        "x",
    ],
)
def test_invalid_model_list_means_other_server(models: Any):
    with serving(models) as server:
        assert ask(server).outcome is Outcome.OTHER_SERVER


def test_model_list_is_read_up_to_a_limit():
    padding = [{"id": "x" * 1000}] * 2000
    with serving({"data": MODELS["data"] + padding}) as server:
        assert ask(server).outcome is Outcome.OTHER_SERVER
    with serving({"data": MODELS["data"] + padding[:100]}) as server:
        assert ask(server).outcome is Outcome.READY


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (401, Outcome.KEY_REFUSED),
        (403, Outcome.KEY_REFUSED),
        (404, Outcome.OTHER_SERVER),
        (500, Outcome.NOT_ANSWERING),
        (502, Outcome.LOADING),
        (503, Outcome.ENGINE_DEAD),
        (504, Outcome.LOADING),
    ],
)
def test_outcome_by_status_of_model_list(status: int, outcome: Outcome):
    with serving(models_status=status) as server:
        assert ask(server).outcome is outcome


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (503, Outcome.ENGINE_DEAD),
        (500, Outcome.NOT_ANSWERING),
        (400, Outcome.CANNOT_CHAT),
        (404, Outcome.OTHER_SERVER),
        (502, Outcome.LOADING),
    ],
)
def test_outcome_by_status_of_completion(status: int, outcome: Outcome):
    with serving(chat_status=status) as server:
        assert ask(server).outcome is outcome


@pytest.mark.parametrize(
    "chat",
    [
        answer(content=""),
        answer(content=" \n"),
        answer(content=None, reasoning=None),
        answer(content=7),
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        {"choices": {}},
        [],
        b"not json",
        b"",
    ],
)
def test_answer_without_text_is_not_ready(chat: Any):
    with serving(chat=chat) as server:
        found = ask(server)
    assert found.outcome is Outcome.NOT_ANSWERING
    assert not found.final


def test_server_sharing_the_port_is_never_ready():
    """The kernel distributes connections between two servers that bind with SO_REUSEPORT."""
    twin_models = {"data": [{"id": "deckard-31b"}, {"id": "launch-0001"}]}
    with serving() as server, serving(models=twin_models, address=("127.0.0.1", server.server_port)) as twin:
        twin.knows = {"deckard-31b", "launch-0001"}
        found = [ask(server).outcome for _ in range(60)]
        assert {body["model"] for _, _, body in (*server.seen, *twin.seen) if body} == {"launch-7c1e"}
        # Every question is a connection of its own here: of those that were ready, both went to our server.
        assert set(found) == {Outcome.OTHER_SERVER, Outcome.READY}
        assert found.count(Outcome.READY) == sum(body is not None for _, _, body in server.seen)


def test_server_on_other_loopback_is_never_asked():
    """`localhost` may mean both addresses, so a plan's address is a number."""
    with serving() as server, serving(models={"data": []}, address=("::1", server.server_port)) as other:
        assert ask(server).outcome is Outcome.READY
        assert other.seen == []


def test_redirects_are_not_followed():
    with serving() as elsewhere, serving() as server:
        server.replies["GET"] = (307, b"", {"Location": f"{elsewhere.url}/models"})
        assert ask(server).outcome is Outcome.OTHER_SERVER
        assert elsewhere.seen == []


def test_probe_uses_no_proxy(monkeypatch: pytest.MonkeyPatch):
    with serving() as proxy, serving() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert ask(server).outcome is Outcome.READY
        assert proxy.seen == []


def test_probe_times_out():
    with serving(chat="hang") as server:
        found = ask(server, timeout_s=0.2)
    assert found.outcome is Outcome.NOT_ANSWERING
    assert "ReadTimeout" in found.detail


def test_key_is_sent_but_not_shown():
    with serving(models_status=401) as server:
        found = ask(server, access=EndpointCredentials(key="sk-secret-1"))
        assert server.seen[0][1]["Authorization"] == "Bearer sk-secret-1"
    assert found.outcome is Outcome.KEY_REFUSED
    assert "secret" not in str(found)


def test_no_key_sends_no_authorization(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """By default, requests reads credentials from ~/.netrc."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serving() as server:
        ask(server)
        assert all("Authorization" not in headers for _, headers, _ in server.seen)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://[::1/v1", "nonsense"])
def test_details_are_one_line(url: str):
    assert "\n" not in probe(url, launch_id="a", served_name="b").detail


@pytest.mark.parametrize(
    ("task", "path", "body", "detail"),
    [
        ("embed", "/v1/embeddings", {"data": [{"embedding": [0.5, -0.25, 0]}]}, "a vector of 3 numbers"),
        ("score", "/v1/rerank", {"results": [{"relevance_score": 0.25}]}, "a score of 0.25"),
    ],
)
def test_engine_of_vectors_or_scores_is_asked_for_one(task: Task, path: str, body: Any, detail: str) -> None:
    with serving(chat=body) as server:
        found = ask(server, task=task)
        asked, _, question = server.seen[-1]
    assert (found.outcome, found.detail) == (Outcome.READY, detail)
    assert (asked, question["model"]) == (path, "launch-7c1e")


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("embed", {"data": [{"embedding": [0.0, 0.0]}]}),
        ("embed", {"data": [{"embedding": [0.5, math.nan]}]}),
        ("embed", {"data": [{"embedding": [None]}]}),
        ("embed", {"data": []}),
        ("embed", []),
        ("score", {"results": [{"relevance_score": math.nan}]}),
        ("score", {"results": [{"relevance_score": "0.5"}]}),
        ("score", {"results": []}),
    ],
)
def test_vector_or_score_of_nothing_is_no_answer(task: Task, body: Any) -> None:
    with serving(chat=body) as server:
        found = ask(server, task=task)
    assert found.outcome is Outcome.NOT_ANSWERING
    assert "answered without a" in found.detail


@pytest.mark.parametrize(
    ("task", "outcome"), [("embed", Outcome.CANNOT_EMBED), ("score", Outcome.CANNOT_SCORE)]
)
def test_refused_vector_or_score_is_final(task: Task, outcome: Outcome) -> None:
    with serving(chat_status=400) as server:
        found = ask(server, task=task)
    assert (found.outcome, found.final) == (outcome, True)
