"""A second machine as far as the network goes: a namespace with a link to this host. It needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil

HERE, THERE = "198.51.100.1", "198.51.100.2"  # RFC 5737: for examples
STORE = """
import sys
from datetime import timedelta
from torch.distributed import TCPStore
store = TCPStore(sys.argv[1], int(sys.argv[2]), is_master=False, timeout=timedelta(seconds=5), wait_for_workers=False)
store.set("deckard", "1")
print("got", store.get("deckard").decode())
"""


@dataclass(frozen=True)
class Neighbour:
    """The namespace, by its name."""

    name: str

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program there."""
        command = ("ip", "netns", "exec", self.name, *argv)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def writes_to_store(self, python: Path, port: int) -> bool:
        """Return True if a client there sets and gets a key of torch's store on a port of this host."""
        return "got 1" in self.run(str(python), "-c", STORE, HERE, str(port)).stdout


@contextmanager
def neighbour() -> Iterator[Neighbour]:
    """Yield a neighbour, and take it away again."""
    name = f"dk{os.getpid()}"
    here, there = f"{name}a", f"{name}b"
    for command in (
        f"netns add {name}",
        f"link add {here} type veth peer name {there} netns {name}",
        f"address add {HERE}/30 dev {here}",
        f"link set {here} up",
        f"-n {name} address add {THERE}/30 dev {there}",
        f"-n {name} link set {there} up",
    ):
        subprocess.run(("ip", *command.split()), check=True, capture_output=True)
    try:
        yield Neighbour(name)
    finally:
        subprocess.run(("ip", "netns", "delete", name), check=True)  # and both ends of the link


def listening(pid: int) -> set[int]:
    """Return the ports on which a process and its children listen for more than their own machine."""
    found = set()
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and not ip_address(connection.laddr.ip).is_loopback:
                found.add(int(connection.laddr.port))
    return found


def listening_in_own_network(pid: int) -> set[int]:
    """Return the same of a process in a namespace: every listener there is its own."""
    command = (
        "nsenter",
        "--target",
        str(pid),
        "--net",
        "ss",
        "--no-header",
        "--listening",
        "--tcp",
        "--numeric",
    )
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    places = [line.split()[3].rsplit(":", 1) for line in lines]
    return {int(port) for address, port in places if address in ("*", "0.0.0.0", "[::]")}
