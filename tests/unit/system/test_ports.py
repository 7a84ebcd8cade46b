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


def test_a_free_port_is_free():
    require_free("127.0.0.1", free_port())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::1"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_listener_is_named(address, shared):
    with bound(address, shared=shared) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            EnvironmentUnfitError, match=rf"{port} cannot be used.*\(pid {os.getpid()}\) listens there"
        ):
            require_free("127.0.0.1" if address != "::1" else "::1", port)


def test_a_server_that_still_loads_has_its_port_already():
    with bound(listen=False) as server, pytest.raises(EnvironmentUnfitError, match="cannot be used"):
        require_free("127.0.0.1", server.getsockname()[1])


def test_connections_of_a_server_that_has_just_ended_are_not_in_the_way():
    with bound() as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))  # the control: the kernel still remembers
    require_free("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_said():
    with pytest.raises(EnvironmentUnfitError, match=r"192\.0\.2\.1:8000 cannot be used: Cannot assign"):
        require_free("192.0.2.1", 8000)


def test_a_connection_that_a_client_keeps_open_to_a_server_that_has_ended_is_not_in_the_way():
    with bound() as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
    accepted.close()  # FIN_WAIT2: the client, a connection pool, does not answer it
    with client:
        require_free("127.0.0.1", port)
