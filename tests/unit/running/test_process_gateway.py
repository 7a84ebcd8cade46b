"""The gateway beside the server: one supervisor, one end. A script takes nginx's place."""

import signal
import sys

import pytest

from deckard_deploy.planning.plan import Gateway
from deckard_deploy.running.process.supervision import ServerState
from deckard_deploy.system.processes import ProcessIdentity, is_alive, send
from tests.support.fake_deployment import World
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


def with_gateway(world: World, script: str, mode: str = "serve") -> None:
    """A running deployment whose plan has the script for a gateway."""
    program = world.deployment.folder / "nginx"
    program.write_text(script)
    program.chmod(0o755)
    gateway = Gateway(
        image=None, program=str(program), user=None, folder=str(world.deployment.folder / "gateway"), exposed=False,
        tls=False, certificate=None, certificate_key=None,
    )  # fmt: skip
    world.started(world.plan(FAKE_MODE=mode).model_copy(update={"gateway": gateway}))


def gateway_of(world: World) -> ProcessIdentity:
    found = ServerState.model_validate_json(world.deployment.process_state.read_text()).gateway
    assert found is not None
    return found


def test_both_run_and_both_are_stopped(world):
    with_gateway(world, NGINX)
    eventually(world.names)
    gateway = gateway_of(world)
    assert eventually(lambda: any("gateway with -p" in line for line in world.runtime().tail(50)))
    assert is_alive(gateway)
    world.runtime().stop()
    assert not is_alive(gateway)
    assert world.names() is None


def test_a_gateway_that_cannot_start_ends_the_server_and_says_why(world):
    with_gateway(world, BROKEN)
    eventually(lambda: world.runtime().observe().state == "exited")
    assert world.runtime().observe().exit_code == 7
    assert "nginx: [emerg] bind() failed" in world.runtime().tail(50)
    assert eventually(lambda: world.processes() == [])


def test_a_server_that_crashes_takes_the_gateway_with_it(world):
    with_gateway(world, NGINX, "late-crash")
    gateway = gateway_of(world)
    eventually(lambda: world.runtime().observe().state == "exited")
    assert world.runtime().observe().exit_code == 7
    assert not is_alive(gateway)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_without_its_supervisor_it_ends(world, number):
    with_gateway(world, NGINX)
    eventually(world.names)
    gateway = gateway_of(world)
    send(ServerState.model_validate_json(world.deployment.process_state.read_text()).supervisor, number)
    assert eventually(lambda: not is_alive(gateway))


def test_it_reads_its_files_again_and_the_server_notices_nothing(world):
    with_gateway(world, NGINX)
    eventually(world.names)
    before = gateway_of(world)
    assert eventually(lambda: any("gateway with" in line for line in world.runtime().tail(50)))
    world.runtime().reload()
    assert eventually(lambda: "gateway reads its files" in world.runtime().tail(50))
    assert gateway_of(world) == before
    assert world.names()


def test_a_socket_that_a_killed_server_left_is_removed(world):
    left = world.deployment.folder / "vllm.sock"
    left.write_text("")
    with_gateway(world, NGINX)
    eventually(world.names)
    assert not left.exists()
