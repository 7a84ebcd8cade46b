"""A process in a network of its own, and one that shares the host's as the control."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deckard_deploy.running.process import isolation

# It listens as torch's store does, on every address, and reaches itself by loopback.
LISTENER = """
import socket
server = socket.create_server(("", 0))
port = server.getsockname()[1]
socket.create_connection(("127.0.0.1", port)).close()
print(port, flush=True)
input()
"""
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin")
needs_namespaces = pytest.mark.skipif(
    isolation.obstacle() is not None, reason=f"no network namespace: {isolation.obstacle()}"
)


@contextmanager
def listener(prepare: Callable[[], None] | None) -> Iterator[int]:
    """Yield the port of a listener on every address."""
    with subprocess.Popen(
        (sys.executable, "-c", LISTENER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=prepare,  # noqa: PLW1509  as the supervisor does
    ) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.communicate(b"\n")


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_listener_on_the_hosts_network_is_reached() -> None:
    with listener(None) as port:
        assert connects(port)


@needs_namespaces
def test_listener_in_its_own_network_is_not_reached() -> None:
    with listener(isolation.enter_own_network) as port:
        assert not connects(port)


@needs_namespaces
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(SYSTEM_PYTHON is None, reason="the tests' own Python may be in a folder of root's")
def test_namespace_needs_no_root() -> None:
    source = Path(isolation.__file__).read_text()
    script = (
        f"{source}\nprint(obstacle())\nenter_own_network()\nprint(os.getuid(), os.listdir('/sys/class/net'))"
    )
    done = subprocess.run(
        (str(SYSTEM_PYTHON), "-"), input=script, user=65534, group=65534, extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == "None", done
    assert done.stdout.splitlines()[1].startswith("65534 "), done
