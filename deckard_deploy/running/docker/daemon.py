"""The life of the docker daemon: a connection that ends with it.

A daemon stops every container when it ends (without live-restore), and docker's API does not say when it has
started. Its stream of events stays open as long as it lives (docs.docker.com/reference/api/engine, /events).
"""

import contextlib
import socket
from collections.abc import Callable

# A filter that matches next to nothing: the stream is not read for its events.
_REQUEST = b'GET /events?filters={"type":["plugin"]} HTTP/1.1\r\nHost: docker\r\n\r\n'
_TIMEOUT_S = 10.0


class DaemonConnection:
    """A connection to the docker daemon, held over the rounds of a watch."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def has_ended(self, endpoint: Callable[[], str | None]) -> bool:
        """Return True if the daemon of the last call has ended since. Connect to the one that runs now.

        endpoint: returns its socket, `unix://…`; None without docker. Called when there is no connection.
        """
        ended = self._socket is not None and _is_closed(self._socket)
        if ended:
            self.close()
        if self._socket is None:
            self._connect(endpoint())
        return ended

    def close(self) -> None:
        """Close the connection."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def _connect(self, endpoint: str | None) -> None:
        if endpoint is None:
            return
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(endpoint.removeprefix("unix://"))
            connection.sendall(_REQUEST)
        except OSError:  # it does not run now; the next call tries again
            connection.close()
            return
        connection.settimeout(0)
        self._socket = connection


def _is_closed(connection: socket.socket) -> bool:
    """Return True if the other end has closed the connection. Discard what it has sent."""
    with contextlib.suppress(BlockingIOError):
        try:
            while connection.recv(1 << 16):
                pass
        except ConnectionError:
            return True
        return True
    return False
