"""A server in a network of its own, and the program that listens for clients in its place."""

import os
import socket
from pathlib import Path

import pytest

from deckard_deploy.running.process import isolation
from deckard_deploy.running.process.supervision import SPEC, ServerSpec
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

needs_namespaces = pytest.mark.skipif(
    isolation.obstacle() is not None, reason=f"no network namespace: {isolation.obstacle()}"
)


def network_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


@needs_namespaces
def test_server_without_gateway_is_reached_through_forwarder(fake: FakeDeployment) -> None:
    release = fake.started(fake.plan())
    assert eventually(fake.names) == ["t", "deckard-launch-1"]
    spec = ServerSpec.model_validate_json((release.folder / SPEC).read_text())
    assert spec.argv[1:4] == ("serve", "/models/tiny", "--uds")
    assert {network_of(process.pid) for process in fake.processes()}.isdisjoint({network_of(os.getpid())})
    with socket.create_connection(("127.0.0.1", fake.port)) as client:  # the end of a request is passed on
        client.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").readline().startswith(b"HTTP/1.0 200")
    fake.runtime().reload()  # it has no keys to read, and no signal ends it
    assert fake.names()
    fake.runtime().stop()
    assert not fake.answers(fake.port)


@needs_namespaces
def test_connection_is_refused_while_the_engine_loads(fake: FakeDeployment) -> None:
    """Readiness reads a refused connection as "not yet": an accepted one would be an answer."""
    script = Path(fake.program).read_text()
    fake.program.write_text(
        script.replace("\ndef main() -> None:\n", "\ndef main() -> None:\n    time.sleep(2)\n")
    )
    fake.started(fake.plan())
    assert not fake.answers(fake.port)
    assert eventually(fake.names)
