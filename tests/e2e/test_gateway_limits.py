"""A full gateway: a real nginx whose limit of requests is reached, in front of an engine that answers none."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest
import requests

from deckard_deploy.planning.gateway import SOCKET
from deckard_deploy.planning.plan import Gateway
from deckard_deploy.rendering.gateway import CONFIG, render_gateway
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys
from tests.support.ports import free_port, listens
from tests.support.sample_plans import built_in
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
IN_FLIGHT = 1040  # the limit of all requests is 1024
BODY = b'{"model": "m"}'
QUESTION = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


@dataclass
class Engine:
    """The engine's side: completions hang, everything else is answered; the ranks that were asked for."""

    release: threading.Event = field(default_factory=threading.Event)
    ranks: list[str | None] = field(default_factory=list)


@dataclass(frozen=True)
class Gate:
    url: str
    port: int
    own: str
    engine: Engine

    def get(self, path: str, key: str | None = None, **headers: str) -> int:
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return requests.get(self.url + path, headers=headers, timeout=20).status_code


def serve(path: Path, engine: Engine) -> UnixStreamServer:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            engine.ranks.append(self.headers.get("X-data-parallel-rank"))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_POST(self) -> None:
            engine.release.wait(120)

        def address_string(self) -> str:
            return "gateway"

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads, request_queue_size = True, 2048

    server = Server(str(path), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def gate() -> Iterator[Gate]:
    root = Path(tempfile.mkdtemp(prefix="gw"))  # short: a socket lies in it
    deployment = root / "deployments" / "box"
    release = deployment / "releases" / "r"
    release.mkdir(parents=True)
    gateway = Gateway(
        image=None, program=shutil.which("nginx"), user=None, folder=str(deployment / "gateway"), exposed=False,
        tls=False, certificate=None, certificate_key=None,
    )  # fmt: skip
    plan = built_in("cpu").model_copy(
        update={"gateway": gateway, "port": free_port(), "address": "127.0.0.1", "runtime": "process"}
    )
    keys = Keys(root)
    files.write_gateway_files(plan, keys, environment=dict(os.environ), say=print)
    (release / CONFIG).write_text(render_gateway(plan))
    engine = Engine()
    server = serve(deployment / SOCKET, engine)
    command = ["nginx", "-p", str(deployment), "-e", "stderr", "-c", str(release / CONFIG)]
    if os.geteuid() == 0:
        command += ["-g", "user root;"]
    with subprocess.Popen(command, cwd=deployment) as nginx:
        try:
            url = f"http://127.0.0.1:{plan.port}"
            gate = Gate(url, plan.port, keys.own(), engine)
            eventually(lambda: listens(plan.port))
            yield gate
        finally:
            engine.release.set()
            nginx.terminate()
    server.shutdown()
    server.server_close()
    shutil.rmtree(root)


def test_full_gateway_is_ready_and_answers_its_own_tool(gate: Gate) -> None:
    """Health checks and this tool's own questions get no 429, which would end a busy engine."""

    async def fill() -> tuple[list[bytes], list[int]]:
        streams = [await asyncio.open_connection("127.0.0.1", gate.port) for _ in range(IN_FLIGHT)]
        for _, writer in streams:
            writer.write(QUESTION)
        await asyncio.gather(*(writer.drain() for _, writer in streams))
        refused = []
        for reader, _ in streams:
            try:
                refused.append(await asyncio.wait_for(reader.readline(), 0.02))
            except TimeoutError:
                pass
        codes = [
            await asyncio.to_thread(gate.get, path, key)
            for path, key in (
                ("/v1/health/live", None),
                ("/v1/health/ready", None),
                ("/v1/models", gate.own),
                ("/metrics", gate.own),
                ("/v1/models", None),
            )
        ]
        for _, writer in streams:
            writer.close()
        return refused, codes

    refused, codes = asyncio.run(fill())
    # More than 256, which one address may have elsewhere: docker shows all clients of this machine as one.
    assert 0 < len(refused) <= IN_FLIGHT - 256
    assert {line.split()[1] for line in refused} == {b"429"}
    assert codes == [200, 200, 200, 200, 429]


def test_figures_of_nginx_are_for_its_own_tool(gate: Gate) -> None:
    url = f"{gate.url}/v1/health/gateway"
    assert gate.get("/v1/health/gateway") == 404
    headers = {"Authorization": f"Bearer {gate.own}", "Host": "gateway:8080"}

    def has_figures() -> bool:
        found = requests.get(url, headers=headers, timeout=10)
        assert found.headers["Content-Type"] == "text/plain; version=0.0.4"
        return dict(line.split() for line in found.text.splitlines()) == {
            "deckard_gateway_connections_active": "1",
            "deckard_gateway_connections_writing": "1",  # this question
            "deckard_gateway_open": "1",
        }

    eventually(has_figures)  # nginx counts a connection until it has seen that the client closed it


def test_rank_is_passed_on_for_its_own_tool_alone(gate: Gate) -> None:
    for key, rank in ((gate.own, "1"), (None, "1"), (gate.own, "1\t2")):
        assert gate.get("/v1/models", key, **{"X-data-parallel-rank": rank}) == 200
    assert gate.engine.ranks == ["1", None, None]
