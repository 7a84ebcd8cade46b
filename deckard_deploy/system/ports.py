"""Is the port free? vLLM binds with SO_REUSEPORT, so a second server would not be refused: it would share the port.

(vllm 0.19.1 entrypoints/openai/api_server.py:497.)
"""

import socket
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError

_LISTEN = "0A"  # include/net/tcp_states.h, as are FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK and CLOSING:
_ENDING = {"04", "05", "06", "09", "0B"}


def require_free(address: str, port: int) -> None:
    """Raise EnvironmentUnfitError, with the owner's name if it can be read, when this TCP port is bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without SO_REUSEADDR and SO_REUSEPORT the bind also fails beside a server that is bound but still loading.
        try:
            probe.bind((address, port))  # guard: F29
        except OSError as error:
            _explain(address, port, error)


def _explain(address: str, port: int, error: OSError) -> None:
    sockets = _sockets(port)
    listening = [inode for state, inode in sockets if state == _LISTEN]
    if not listening and any(state in _ENDING for state, _ in sockets):
        # Only connections of a server that has just ended; a server's SO_REUSEADDR takes no notice of them.
        return
    owner = next((named for inode in listening if (named := _owner(inode))), "another process")
    raise EnvironmentUnfitError(
        f"{address}:{port} cannot be used: {error.strerror}"
        + (f"; {owner} listens there" if listening else ""),
        hint=f"choose another with --port, or see who has it: ss -ltnp 'sport = :{port}'",
    ) from error


def _sockets(port: int) -> list[tuple[str, str]]:
    """State and inode of every TCP socket on a local port (proc(5), /proc/net/tcp)."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                found.append((fields[3], fields[9]))
    return found


def _owner(inode: str) -> str | None:
    """`name (pid n)` of a process that holds the socket; None when that is another user's secret."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == f"socket:[{inode}]":
                process = link.parents[1]
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # ended meanwhile, or another user's
    return None
