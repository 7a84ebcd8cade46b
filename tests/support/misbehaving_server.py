"""A server on loopback with scripted answers, byte by byte, which no real vLLM gives on demand."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

# whole: in pieces of a random size. drip: a byte at a time, without end. cut: half of it. stall: then
# silence. hang: silence. close, reset: no answer. endless: the body again and again. raw: the body is all,
# without a head.
Manner = Literal[
    "whole", "chunked", "drip", "drip head", "cut", "stall", "hang", "close", "reset", "endless", "raw"
]
DRIP_S = 0.02


@dataclass(frozen=True)
class Reply:
    """One answer."""

    body: Any = b""
    status: int = 200
    manner: Manner = "whole"
    head: tuple[str, ...] = ()
    length: bool = True

    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answering = Callable[[str, int], Reply | None]


class Misbehaving:
    """The server. answering: ("GET /v1/models", number of the request of its kind, from 0) -> reply."""

    def __init__(self, answering: Answering, random: Random) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))  # bound, so refused until `listen`, as vLLM is while it loads
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._answering, self._random = answering, random
        self._counts: dict[str, int] = {}
        self._over = threading.Event()

    def listen(self) -> None:
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self.listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while request := _request(connection):
                count = self._counts[request] = self._counts.get(request, -1) + 1
                reply = self._answering(request, count) or Reply(status=404)
                if not self._send(connection, reply):
                    return

    def _send(self, connection: socket.socket, reply: Reply) -> bool:  # noqa: C901, PLR0911, PLR0912  a flat table
        """Send the reply. Return True if the connection stays open."""
        body = reply.bytes()
        match reply.manner:
            case "close":
                return False
            case "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            case "hang":
                self._over.wait()
                return False
            case "raw":
                connection.sendall(body)
                return False
            case "drip head":
                self._forever(connection, _head(reply, 9) + b"X-Filler: ")
            case "drip":
                connection.sendall(_head(reply, 10**9))
                self._forever(connection, body)
            case "endless":
                connection.sendall(_head(reply, 10**12))
                while not self._over.is_set():
                    connection.sendall(body)
            case "stall":
                connection.sendall(_head(reply, len(body)) + body[:1])
                self._over.wait()
            case "cut":
                connection.sendall(_head(reply, len(body)) + body[: len(body) // 2])
            case "chunked":
                connection.sendall(_head(reply, None, "Transfer-Encoding: chunked"))
                for piece in self._pieces(body):
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                connection.sendall(b"0\r\n\r\n")
                return True
            case "whole":
                for piece in self._pieces(_head(reply, len(body) if reply.length else None) + body):
                    connection.sendall(piece)
                return reply.length
        return False

    def _forever(self, connection: socket.socket, sent: bytes) -> None:
        position = 0
        while not self._over.wait(DRIP_S):
            connection.sendall(sent[position : position + 1] or b"x")
            position += 1

    def _pieces(self, sent: bytes) -> Iterator[bytes]:
        size = self._random.choice((7, 64, 1 << 16))
        for start in range(0, len(sent), size):
            yield sent[start : start + size]


@contextmanager
def misbehaving(
    answering: Answering, random: Random, *, listens_after_s: float = 0.0
) -> Iterator[Misbehaving]:
    server = Misbehaving(answering, random)
    timer = threading.Timer(listens_after_s, server.listen)
    timer.start()
    try:
        yield server
    finally:
        timer.cancel()
        timer.join()
        server.close()


def _head(reply: Reply, length: int | None, *more: str) -> bytes:
    lengths = () if length is None else (f"Content-Length: {length}",)
    return "\r\n".join([f"HTTP/1.1 {reply.status} Whatever", *reply.head, *lengths, *more, "", ""]).encode()


def _request(connection: socket.socket) -> str:
    """Read a request and return its `METHOD path`, an empty string if the client has hung up."""
    got = b""
    while b"\r\n\r\n" not in got:
        if not (piece := connection.recv(1 << 16)):
            return ""
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    length = next(
        (int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(1 << 16)
    return lines[0].rpartition(" ")[0]
