"""TCP ports on loopback."""

import contextlib
import secrets
import socket


def free_port() -> int:
    """Return a port that nothing listens on, below those that the kernel hands out by itself (ip_local_port_range).

    It is taken a moment later, and servers of other tests start at the same time.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Return whether something listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
