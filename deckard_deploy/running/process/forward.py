"""Pass connections on to the engine's socket: `python forward.py SOCKET ADDRESS PORT`.

An engine in a network of its own cannot listen on this host's addresses. This program listens there in its
place where no gateway does, from the moment at which the engine accepts connections. It reads no HTTP.
"""

import asyncio
import contextlib
import socket
import sys

POLL_S = 0.1
_PIECE = 1 << 16


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _wait_for_engine(path: str) -> None:
    """Return as soon as the engine accepts connections: until then a client's connection is refused."""
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except OSError:
            await asyncio.sleep(POLL_S)
            continue
        writer.close()
        return


async def forward(path: str, address: str, port: int) -> None:
    """Pass connections to `address` and `port` on to the socket at `path`, until this process ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            engine_reader, engine_writer = await asyncio.open_unix_connection(path)
            with contextlib.closing(engine_writer):
                await asyncio.gather(_copy(reader, engine_writer), _copy(engine_reader, writer))

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    await _wait_for_engine(path)
    server = await asyncio.start_server(serve, sock=listener, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(sys.argv[1], sys.argv[2], int(sys.argv[3])))
