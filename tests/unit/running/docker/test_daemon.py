"""The connection that ends with the docker daemon, with a listening socket in the daemon's place."""

import socket
from pathlib import Path

from deckard_deploy.running.docker.daemon import DaemonConnection


def listening(path: Path) -> socket.socket:
    daemon = socket.socket(socket.AF_UNIX)
    daemon.bind(str(path))
    daemon.listen()
    daemon.settimeout(10)
    return daemon


def test_end_of_the_daemon_is_noticed_once(tmp_path: Path) -> None:
    path, connection = tmp_path / "s", DaemonConnection()
    with listening(path) as daemon:
        assert not connection.has_ended(lambda: f"unix://{path}")
        stream, _ = daemon.accept()
        assert stream.recv(1000).startswith(b"GET /events?")
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")
        assert not connection.has_ended(lambda: f"unix://{path}")
        stream.close()
    path.unlink()
    assert connection.has_ended(lambda: f"unix://{path}")
    assert not connection.has_ended(lambda: f"unix://{path}")  # it is away, which is known by now
    with listening(path) as daemon:
        assert not connection.has_ended(lambda: f"unix://{path}")
        daemon.accept()[0].close()
    assert connection.has_ended(lambda: f"unix://{path}")
    connection.close()


def test_deployment_without_docker_has_no_daemon() -> None:
    connection = DaemonConnection()
    assert not connection.has_ended(lambda: None)
    assert not connection.has_ended(lambda: None)
