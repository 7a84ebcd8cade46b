"""Real nginx in front of a small engine: the answers of the gateway itself, in the shape of the route's API."""

import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import MappingProxyType

import openai
import pytest
import requests

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.operations.plan import plan_for_host
from deckard_deploy.planning.gateway import SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.gateway import render_gateway
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys, KeyTerms
from deckard_deploy.running.layout import StateDir
from tests.e2e.gateway_attacks import ROUTES, Attack, answers, attacks, got_through, request
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(
    shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="nginx is not installed"
)
SPOKEN = {"object": "chat.completion"}


class Engine(BaseHTTPRequestHandler):
    """It lists a launch and a path of the host, as vLLM does, and says what it has heard."""

    server: "Engines"

    def do_GET(self) -> None:
        self.server.heard.append(f"{self.command} {self.path}")
        models = [{"id": "tiny-gemma4", "root": "/home/me/models"}, {"id": "deckard-launch-1"}]
        self.send({"/health": {}, "/metrics": {"metrics": "vllm:"}}.get(self.path, {"data": models}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append(f"{self.command} {self.path}")
        if b"too many" in body:
            self.send({"error": "limit"}, 429, {"Retry-After": "17"})
            return
        if b"break off" in body:
            self.close_connection = True
            return
        self.send({**SPOKEN, "path": self.path, "headers": dict(self.headers)})

    def send(
        self, answer: object, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        body = json.dumps(answer, separators=(",", ":")).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "gateway"


class Engines(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        super().__init__(str(path), Engine)


@dataclass(frozen=True)
class Gateway:
    """A running nginx, its address, keys of clients, and the tool's own. bob has limits; ended: its time is over."""

    base: str
    plan: LaunchPlan
    alice: str
    bob: str
    ended: str
    own: str
    socket: Path

    def ask(self, method: str, path: str, **options: object) -> requests.Response:
        headers = {"x-api-key": self.alice, **options.pop("headers", {})}  # type: ignore[dict-item]
        if method == "POST":
            headers.setdefault("Content-Type", "application/json")
        return requests.request(method, self.base + path, headers=headers, timeout=10, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory, port = StateDir(tmp_path_factory.mktemp("g") / "s"), free_port()
    choice = Deployment(name="g", publish=Publish(expose="127.0.0.1", port=port, tls=False))
    plan = plan_for_host(resolve(choice, profile=library.profile("cpu")), directory, None)
    deployment, keys = directory.create("g"), Keys(directory.root)
    with keys.lock():
        alice = keys.add("alice")
        bob = keys.add("bob", KeyTerms(requests=60, concurrent=2, ends_at=int(time.time()) + 3600))
        ended = keys.add("ended", KeyTerms(ends_at=int(time.time()) - 1))
    files.write_gateway_files(plan, keys, environment=dict(os.environ), say=print)
    release = deployment.releases / plan.hash
    release.mkdir()
    (release / "nginx.conf").write_text(render_gateway(plan))
    assert plan.gateway
    command = [str(plan.gateway.program), "-p", str(deployment.folder), "-e", "stderr"]
    command += ["-c", str(release / "nginx.conf")]
    if os.geteuid() == 0:
        command += ["-g", "user root;"]
    with subprocess.Popen(command, cwd=deployment.folder) as nginx:
        try:
            base = f"http://127.0.0.1:{port}"
            eventually(lambda: is_open(port))
            yield Gateway(base, plan, alice, bob, ended, keys.own(), deployment.folder / SOCKET)
        finally:
            nginx.send_signal(signal.SIGTERM)


@pytest.fixture
def engine(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engines]:
    monkeypatch.chdir(gateway.socket.parent)  # a path of a socket has 107 bytes at most
    with Engines(Path(SOCKET)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
    gateway.socket.unlink()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "header",
    ["Authorization: Bearer {}", "Authorization: bearer {}", "Authorization: BEARER  {}", "x-api-key: {}",
     "api-key: {}", "Authorization: Bearer none\r\nX-Api-Key: {}"],
)  # fmt: skip
def test_key_comes_as_each_client_sends_it(gateway: Gateway, header: str) -> None:
    address = ("127.0.0.1", gateway.plan.port)
    for path in (CHAT, MESSAGES):
        sent = request("POST", path, more=header.format(gateway.alice), body=b"{}")
        assert answers(address, sent).startswith(b"HTTP/1.1 200 "), path
        wrong = gateway.alice[:-1] + ("0" if gateway.alice[-1] != "0" else "1")
        assert answers(address, request("POST", path, more=header.format(wrong), body=b"{}")).startswith(
            b"HTTP/1.1 401 "
        )


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("behind", ["", "/", "?beta=true", "/?api-version=2024-10-21", "?"])
def test_query_and_slash_do_not_reach_the_engine(gateway: Gateway, behind: str) -> None:
    for path in (CHAT, "/v1/completions", "/v1/responses", MESSAGES, "/v1/messages/count_tokens"):
        said = gateway.ask("POST", path + behind, json={}, headers={"Origin": "http://evil.example"}).json()
        assert said["path"] == path
        assert set(said["headers"]) == {"Host", "Content-Type", "Content-Length", "X-Deckard-Key"}


@pytest.mark.usefixtures("engine")
def test_engine_is_told_whose_request_it_is(gateway: Gateway) -> None:
    forged = {"X-Deckard-Key": "dk-mallory", "X-Deckard-Limits": "requests=999"}

    def told(key: str) -> tuple[str | None, str | None]:
        headers = gateway.ask("POST", CHAT, json={}, headers={"x-api-key": key, **forged}).json()["headers"]
        return headers.get("X-Deckard-Key"), headers.get("X-Deckard-Limits")

    assert told(gateway.alice) == ("dk-alice", None)
    assert told(gateway.bob) == ("dk-bob", "requests=60 concurrent=2")
    assert told(gateway.own) == ("dk-deckard", None)


def test_key_whose_time_is_over_is_refused(gateway: Gateway, engine: Engines) -> None:
    for path in (CHAT, MESSAGES):
        assert gateway.ask("POST", path, json={}, headers={"x-api-key": gateway.ended}).status_code == 401
    assert gateway.ask("GET", "/v1/models", headers={"x-api-key": gateway.ended}).status_code == 401
    assert engine.heard == []


@pytest.mark.usefixtures("engine")
def test_engine_says_when_to_ask_again(gateway: Gateway) -> None:
    said = gateway.ask("POST", CHAT, json={"say": "too many"})
    assert (said.status_code, said.headers["Retry-After"]) == (429, "17")


def test_models_hide_the_launch_and_the_host(gateway: Gateway, engine: Engines) -> None:
    for path in ("/v1/models", "/v1/models/", "/v1/models?limit=5"):
        assert [model["id"] for model in gateway.ask("GET", path).json()["data"]] == ["tiny-gemma4"]
    assert gateway.ask("GET", "/v1/models/tiny-gemma4").json()["max_model_len"] == 1024
    assert "home" not in gateway.ask("GET", "/v1/models").text
    assert set(engine.heard) == {"GET /health"}
    own = gateway.ask("GET", "/v1/models", headers={"x-api-key": gateway.own}).json()
    assert "deckard-launch-1" in [model["id"] for model in own["data"]]
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key=gateway.alice, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny-gemma4"]
        assert client.models.retrieve("tiny-gemma4").id == "tiny-gemma4"
        with pytest.raises(openai.NotFoundError, match="there is tiny-gemma4") as raised:
            client.models.retrieve("gpt-4o")
    assert raised.value.code == "model_not_found"


@pytest.mark.usefixtures("engine")
def test_head_and_options_behave(gateway: Gateway) -> None:
    for path in ("/v1/models", "/v1/models/tiny-gemma4", "/v1/health/live", "/v1/health/ready"):
        head = gateway.ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b""), path
    for path, allowed in (
        ("/v1/models", "GET, HEAD, OPTIONS"),
        (CHAT, "POST, OPTIONS"),
        (MESSAGES, "POST, OPTIONS"),
    ):
        said = gateway.ask("OPTIONS", path, headers={"Origin": "http://evil.example"})
        assert (said.status_code, said.headers["Allow"]) == (204, allowed)
        assert [name for name in said.headers if name.lower().startswith("access-control")] == []
        wrong = gateway.ask("PUT", path)
        assert (wrong.status_code, wrong.headers["Allow"], wrong.json()["error"]["message"][:11]) == (
            405, allowed, "this route ")  # fmt: skip
    assert gateway.ask("OPTIONS", "/v1/embeddings").status_code == 404


def of_api(said: requests.Response, path: str, code: str, kind: str) -> None:
    """Check the shape of an error: OpenAI's with its code, Anthropic's with its type."""
    error = said.json()["error"]
    if path == MESSAGES:
        assert (said.json()["type"], error["type"]) == ("error", kind)
    else:
        assert error["code"] == code
    assert error["message"]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_refusals_have_the_shape_of_the_api(gateway: Gateway, path: str) -> None:
    said = gateway.ask("POST", path, json={}, headers={"x-api-key": None})
    assert said.headers["WWW-Authenticate"] == 'Bearer realm="deckard"'
    assert said.status_code == 401
    of_api(said, path, "missing_api_key", "authentication_error")
    said = gateway.ask("POST", path, json={}, headers={"x-api-key": "sk-wrong"})
    assert said.headers["WWW-Authenticate"] == 'Bearer realm="deckard", error="invalid_token"'
    of_api(said, path, "invalid_api_key", "authentication_error")
    said = gateway.ask("POST", f"{path}/x", json={})
    of_api(said, path, "unknown_route", "not_found_error")
    assert (said.status_code, said.headers["Content-Type"]) == (404, "application/json")
    said = gateway.ask("POST", path, data=b"x", headers={"Content-Type": "text/plain"})
    assert said.status_code == 415
    of_api(said, path, "unsupported_media_type", "invalid_request_error")
    said = gateway.ask("POST", path, data=b"x" * (33 << 20))
    assert said.status_code == 413
    of_api(said, path, "request_too_large", "request_too_large")
    said = gateway.ask("POST", path, json={}, headers={"Host": "x y"})
    assert said.status_code == 400
    of_api(said, path, "bad_request", "invalid_request_error")
    said = gateway.ask("POST", f"{path}?{'a' * 9000}", json={})
    assert (said.status_code, said.json()["error"]["message"]) == (414, "the URL is too long")
    said = gateway.ask("POST", path, json={}, headers={"X-Long": "a" * 9000})
    assert said.status_code == 431
    of_api(said, path, "headers_too_large", "invalid_request_error")
    said = gateway.ask("POST", path, json={"say": "break off"})
    assert said.status_code == 502
    of_api(said, path, "engine_error", "api_error")
    assert "Retry-After" not in said.headers


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_loading_engine_is_a_503_that_is_tried_again(gateway: Gateway, path: str) -> None:
    said = gateway.ask("POST", path, json={})
    assert (said.status_code, said.headers["Retry-After"]) == (503, "5")
    of_api(said, path, "model_loading", "overloaded_error")
    assert gateway.ask("POST", path, json={}, headers={"x-api-key": gateway.own}).status_code == 502
    assert gateway.ask("GET", "/v1/models").status_code == 503
    assert gateway.ask("GET", "/v1/health/ready").status_code == 503
    assert gateway.ask("GET", "/v1/health/live").json() == {"live": True}


def test_sdk_waits_for_a_loading_engine(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official client reads Retry-After, and is answered once the engine is there."""
    monkeypatch.chdir(gateway.socket.parent)
    server: list[Engines] = []

    def load() -> None:
        server.append(Engines(Path(SOCKET)))
        server[0].serve_forever()

    timer = threading.Timer(1, load)
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key=gateway.alice, max_retries=1) as client:
        timer.start()
        said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert said.object == "chat.completion"
    server[0].shutdown()
    server[0].server_close()
    gateway.socket.unlink()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_too_many_requests_are_a_429(gateway: Gateway, path: str) -> None:
    """Without an engine each is answered fast enough for the limit of 50 a second."""
    one = request("POST", path, more=f"x-api-key: {gateway.alice}", body=b"{}").replace(
        b"Connection: close\r\n", b""
    )
    said = answers(("127.0.0.1", gateway.plan.port), one * 1000)
    head, _, body = said[said.index(b"HTTP/1.1 429") :].partition(b"\r\n\r\n")
    assert b"Retry-After: 1\r\n" in head + b"\r\n"
    assert (b"rate_limit_error" if path == MESSAGES else b"rate_limit_exceeded") in body.partition(b"\n")[0]


def test_no_attack_is_answered(gateway: Gateway, engine: Engines) -> None:
    address = ("127.0.0.1", gateway.plan.port)
    assert got_through(address, attacks()) == []
    assert engine.heard == []
    keyed = [
        Attack(path, request(method, path, more=f"x-api-key: {gateway.alice}", body=body))
        for method, path, body in ROUTES[:-1]
    ]
    assert got_through(address, keyed[:4]) == [
        attack.name for attack in keyed[:4]
    ]  # what the engine says is seen
