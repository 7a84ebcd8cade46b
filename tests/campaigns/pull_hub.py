"""Hubs of the pull campaigns: one that kills the client at a given byte, and one that sends without end."""

import hashlib
import mmap
import multiprocessing
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deckard_deploy.weights.manifest import Manifest, RemoteFile
from deckard_deploy.weights.pull import PullReporter
from deckard_deploy.weights.transfer import TransferSettings
from tests.support.hub_server import COMMIT, REPO, Answer, Hub

NAME = "model.safetensors"
SIZE = 8 << 20
PIECE = 16 << 10
PACE = TransferSettings(segment_bytes=1 << 20, backoff_s=0.01, stall_s=5)
ALLOWED = 1 << 20


class Trap:
    """Memory shared with the server's process: the pid to kill, after how many bytes, and the bytes sent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 24)

    def set(self, pid: int, after: int) -> None:
        self._memory[:24] = struct.pack("<qqq", pid, after, 0)

    def get(self) -> tuple[int, int, int]:
        pid, after, sent = struct.unpack("<qqq", self._memory[:24])
        return pid, after, sent

    def sent(self, count: int) -> None:
        self._memory[16:24] = struct.pack("<q", count)


def serve(hub: Hub, trap: Trap) -> None:
    """Send exactly as many bytes as the trap says, over however many connections, then kill the client."""

    def bounded(answer: Answer, name: str, start: int, end: int) -> bool:
        data = hub.files[name]
        # Bytes in the server's own buffer were not fetched; a small buffer makes "sent" mean "arrived".
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        answer.head(data, start, end)
        position = start
        while position < end:
            with hub.lock:
                pid, after, sent = trap.get()
                if pid < 0:
                    answer.cut()
                    return True
                count = min(PIECE, end - position, after - sent)
                answer.wfile.write(data[position : position + count])
                trap.sent(sent + count)
                position += count
                if sent + count == after:
                    trap.set(-1, 0)
                    trap.sent(sent + count)
                    os.kill(pid, signal.SIGKILL)
        return True

    hub.fault = bounded
    hub.server.serve_forever(poll_interval=0.05)


def serve_on(hub: Hub, trap: Trap) -> None:
    """Send as much as is taken, and count what has left for the client."""

    def counted(answer: Answer, name: str, start: int, end: int) -> bool:
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        answer.head(hub.files[name], start, end)
        while start < end:
            taken = answer.connection.send(hub.files[name][start : min(end, start + 4096)])
            start += taken
            with hub.lock:
                trap.sent(trap.get()[2] + taken)
        return True

    hub.fault = counted
    hub.server.serve_forever(poll_interval=0.05)


def manifest_of(hub: Hub) -> Manifest:
    """The manifest that the hub would send; it is built here once."""
    files = tuple(
        RemoteFile(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in hub.files.items()
    )
    return Manifest(repo=REPO, commit=COMMIT, files=files)


@contextmanager
def served(hub: Hub, work: Callable[[], None]) -> Iterator[None]:
    """The hub in a process of its own, so that this one has no threads and may fork."""
    os.environ["HF_ENDPOINT"] = hub.url
    server = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    server.start()
    try:
        yield
    finally:
        server.kill()
        server.join()


def silent() -> PullReporter:
    """A puller that nobody watches."""
    return PullReporter(lambda _: None, lambda *_: None, PACE)
