"""The gateway next to the server, under the same supervisor. A script replaces nginx."""

import signal
import sys

import pytest

from deckard_deploy.planning.plan import Gateway
from deckard_deploy.running.process.supervision import ServerState
from deckard_deploy.system.processes import ProcessIdentity, is_alive, send_signal
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually

NGINX = f"""#!{sys.executable}
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: print("gateway reads its files", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("gateway with", *sys.argv[1:], flush=True)
while True:
    signal.pause()
"""
BROKEN = "#!/bin/sh\necho 'nginx: [emerg] bind() failed' >&2\nexit 7\n"


def start_with_gateway(world: FakeDeployment, script: str, mode: str = "serve") -> None:
    """Start a deployment whose plan has the script as its gateway."""
    program = world.deployment.folder / "nginx"
    program.write_text(script)
    program.chmod(0o755)
    gateway = Gateway(
        image=None, program=str(program), user=None, folder=str(world.deployment.folder / "gateway"), exposed=False,
        tls=False, certificate=None, certificate_key=None,
    )  # fmt: skip
    world.started(world.plan(FAKE_MODE=mode).model_copy(update={"gateway": gateway}))


def gateway_of(world: FakeDeployment) -> ProcessIdentity:
    found = ServerState.model_validate_json(world.deployment.process_state.read_text()).gateway
    assert found is not None
    return found


def test_gateway_runs_and_stops_with_server(world):
    start_with_gateway(world, NGINX)
    eventually(world.names)
    gateway = gateway_of(world)
    assert eventually(lambda: any("gateway with -p" in line for line in world.runtime().tail(50)))
    assert is_alive(gateway)
    world.runtime().stop()
    assert not is_alive(gateway)
    assert world.names() is None


def test_failed_gateway_ends_the_server(world):
    start_with_gateway(world, BROKEN)
    eventually(lambda: world.runtime().observe().state == "exited")
    assert world.runtime().observe().exit_code == 7
    assert "nginx: [emerg] bind() failed" in world.runtime().tail(50)
    assert eventually(lambda: world.processes() == [])


def test_crashed_server_ends_the_gateway(world):
    start_with_gateway(world, NGINX, "late-crash")
    gateway = gateway_of(world)
    eventually(lambda: world.runtime().observe().state == "exited")
    assert world.runtime().observe().exit_code == 7
    assert not is_alive(gateway)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_gateway_ends_with_supervisor(world, number):
    start_with_gateway(world, NGINX)
    eventually(world.names)
    gateway = gateway_of(world)
    send_signal(
        ServerState.model_validate_json(world.deployment.process_state.read_text()).supervisor, number
    )
    assert eventually(lambda: not is_alive(gateway))


def test_reload_leaves_server_unchanged(world):
    start_with_gateway(world, NGINX)
    eventually(world.names)
    before = gateway_of(world)
    assert eventually(lambda: any("gateway with" in line for line in world.runtime().tail(50)))
    world.runtime().reload()
    assert eventually(lambda: "gateway reads its files" in world.runtime().tail(50))
    assert gateway_of(world) == before
    assert world.names()


def test_leftover_socket_is_removed(world):
    left = world.deployment.folder / "vllm.sock"
    left.write_text("")
    start_with_gateway(world, NGINX)
    eventually(world.names)
    assert not left.exists()
