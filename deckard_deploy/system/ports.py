"""Free TCP ports, and the owners of the others.

vLLM binds with SO_REUSEPORT (vllm 0.19.1 entrypoints/openai/api_server.py:497), so the kernel does not refuse
a second server: the two would share the port.
"""

import errno
import socket
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError

NO_ADDRESS = "is no address of this machine"
# include/net/tcp_states.h
_LISTEN = "0A"
_ENDING = {"04", "05", "06", "09", "0B"}  # FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on, as far as the kernel knows at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(address: str, port: int) -> None:
    """Raise EnvironmentUnfitError if this TCP port is bound; the error names the owner if it can be read."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without SO_REUSEADDR and SO_REUSEPORT the bind also fails next to a server that is bound but still
        # loads.
        try:
            probe.bind((address, port))  # guard: F29
        except OSError as error:
            _refuse_bound(address, port, error)


def _refuse_bound(address: str, port: int, error: OSError) -> None:
    """Raise EnvironmentUnfitError, unless only connections of a server that has just ended hold the port."""
    if error.errno == errno.EADDRNOTAVAIL:
        raise EnvironmentUnfitError(f"{address} {NO_ADDRESS}", hint="ip -brief address") from error
    sockets = _sockets(port)
    listeners = [inode for state, inode in sockets if state == _LISTEN]
    if not listeners and any(state in _ENDING for state, _ in sockets):
        return  # the new server sets SO_REUSEADDR, so these connections do not matter
    message = f"{address}:{port} cannot be used: {error.strerror}"
    if listeners:
        message += f"; {_owner_name(listeners)} listens there"
    raise EnvironmentUnfitError(
        message, hint=f"choose another with --port, or see who has it: ss -ltnp 'sport = :{port}'"
    ) from error


def _sockets(port: int) -> list[tuple[str, str]]:
    """Return state and inode of every TCP socket on a local port (proc(5), /proc/net/tcp)."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                found.append((fields[3], fields[9]))
    return found


def _owner_name(inodes: list[str]) -> str:
    """Return the name of the first owner that can be read."""
    for inode in inodes:
        owner = _owner(inode)
        if owner:
            return owner
    return "another process"


def _owner(inode: str) -> str | None:
    """Return `name (pid n)` of a process that holds the socket, None if only another user's process does."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == f"socket:[{inode}]":
                process = link.parents[1]
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # the process has ended, or is another user's
    return None
