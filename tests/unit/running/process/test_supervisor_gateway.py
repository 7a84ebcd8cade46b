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
import signal, sys, time
signal.signal(signal.SIGHUP, lambda *_: print("gateway reads its files", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("gateway with", *sys.argv[1:], flush=True)
while True:
    time.sleep(0.1)  # not signal.pause(), which sleeps through a signal that comes just before it
"""
BROKEN = "#!/bin/sh\necho 'nginx: [emerg] bind() failed' >&2\nexit 7\n"


def start_with_gateway(fake: FakeDeployment, script: str, mode: str = "serve") -> None:
    """Start a deployment whose plan has the script as its gateway."""
    program = fake.deployment.folder / "nginx"
    program.write_text(script)
    program.chmod(0o755)
    gateway = Gateway(
        image=None, program=str(program), user=None, folder=str(fake.deployment.folder / "gateway"), exposed=False,
        tls=False, certificate=None, certificate_key=None,
    )  # fmt: skip
    arguments = ("/models/tiny", "--uds", "vllm.sock", "--served-model-name", "t")
    plan = fake.plan(FAKE_MODE=mode).model_copy(update={"gateway": gateway, "arguments": arguments})
    fake.started(plan)


def wait_until_serving(fake: FakeDeployment) -> None:
    eventually(lambda: "Application startup complete." in fake.runtime().tail(50))


def gateway_of(fake: FakeDeployment) -> ProcessIdentity:
    found = ServerState.model_validate_json(fake.deployment.process_state.read_text()).gateway
    assert found is not None
    return found


def test_gateway_runs_and_stops_with_server(fake):
    start_with_gateway(fake, NGINX)
    wait_until_serving(fake)
    gateway = gateway_of(fake)
    assert eventually(lambda: any("gateway with -p" in line for line in fake.runtime().tail_gateway(50)))
    assert is_alive(gateway)
    fake.runtime().stop()
    assert not is_alive(gateway)
    assert fake.processes() == []


def test_failed_gateway_leaves_the_server_alone(fake):
    start_with_gateway(fake, BROKEN)
    eventually(lambda: fake.runtime().observe().gateway == "exited")
    seen = fake.runtime().observe()
    assert (seen.state, seen.restart_count, seen.gateway_exit_code) == ("running", 0, 7)
    assert "nginx: [emerg] bind() failed" in fake.runtime().tail_gateway(50)
    wait_until_serving(fake)


def test_killed_gateway_is_started_again_alone(fake):
    start_with_gateway(fake, NGINX)
    wait_until_serving(fake)
    before, server = gateway_of(fake), fake.processes()
    send_signal(before, signal.SIGKILL)
    eventually(lambda: fake.runtime().observe().gateway == "running" and gateway_of(fake) != before)
    seen = fake.runtime().observe()
    assert (seen.state, seen.restart_count, seen.gateway_exit_code) == ("running", 0, 137)
    assert server[0] in fake.processes()
    assert len(fake.processes()) == 2


def test_crashed_server_ends_the_gateway(fake):
    start_with_gateway(fake, NGINX, "late-crash")
    gateway = gateway_of(fake)
    eventually(lambda: fake.runtime().observe().state == "exited")
    assert fake.runtime().observe().exit_code == 7
    assert not is_alive(gateway)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_gateway_ends_with_supervisor(fake, number):
    start_with_gateway(fake, NGINX)
    wait_until_serving(fake)
    gateway = gateway_of(fake)
    send_signal(ServerState.model_validate_json(fake.deployment.process_state.read_text()).supervisor, number)
    assert eventually(lambda: not is_alive(gateway))


def test_reload_leaves_server_unchanged(fake):
    start_with_gateway(fake, NGINX)
    wait_until_serving(fake)
    before = gateway_of(fake)
    assert eventually(lambda: any("gateway with" in line for line in fake.runtime().tail_gateway(50)))
    fake.runtime().reload()
    assert eventually(lambda: "gateway reads its files" in fake.runtime().tail_gateway(50))
    assert gateway_of(fake) == before
    assert len(fake.processes()) == 2


def test_leftover_socket_is_removed(fake):
    left = fake.deployment.folder / "vllm.sock"
    left.write_text("")
    start_with_gateway(fake, NGINX)
    wait_until_serving(fake)
    assert left.is_socket()
