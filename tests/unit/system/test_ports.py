import os
import socket

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.system.ports import require_free
from tests.support.ports import free_port


def bound(
    address: str = "127.0.0.1", port: int = 0, *, shared: bool = True, listen: bool = True
) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family)
    if shared:  # as vLLM
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind((address, port))
    if listen:
        server.listen()
    return server


def test_free_port_is_accepted():
    require_free("127.0.0.1", free_port())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::1"])
@pytest.mark.parametrize("shared", [True, False])
def test_listener_is_named(address, shared):
    with bound(address, shared=shared) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            EnvironmentUnfitError, match=rf"{port} cannot be used.*\(pid {os.getpid()}\) listens there"
        ):
            require_free("127.0.0.1" if address != "::1" else "::1", port)


def test_address_of_another_machine_is_no_taken_port():
    with bound() as server, pytest.raises(EnvironmentUnfitError) as caught:
        require_free("192.0.2.1", server.getsockname()[1])  # TEST-NET-1, RFC 5737
    assert (caught.value.message, caught.value.hint) == (
        "192.0.2.1 is no address of this machine",
        "ip -brief address",
    )


def test_bound_port_without_listener_is_refused():
    with bound(listen=False) as server, pytest.raises(EnvironmentUnfitError, match="cannot be used"):
        require_free("127.0.0.1", server.getsockname()[1])


def test_connections_in_time_wait_are_accepted():
    with bound() as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))  # the control: the kernel still remembers
    require_free("127.0.0.1", port)


def test_connection_kept_open_by_client_is_accepted():
    with bound() as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
    accepted.close()  # FIN_WAIT2: the client, as a connection pool, does not close
    with client:
        require_free("127.0.0.1", port)
