"""The cost of the gateway, measured in one run: python benchmarks/gateway.py [--streams 16]

Concurrent streamed chats with the same server, directly and through nginx as the tool renders it: time to the first
token, tokens a second, the gaps between chunks, and nginx's processor time. The server is a fake that waits for 50 ms
and then sends a token every 20 ms: vLLM on a CPU is slower and less even, and its noise would hide the difference. Runs
alternate. A ratio is the median of pairs.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.operations.plan import plan_for_host
from deckard_deploy.planning.gateway import SOCKET
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.gateway import render_gateway
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir

PREFILL_S, TOKEN_S, TOKENS = 0.05, 0.02, 100
BODY = (
    b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "' + b"Hello? " * 300 + b'"}]}'
)
EVENT = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'


async def serve(folder: str, port: int) -> None:
    """Run the fake server, on a TCP port and on the socket that nginx connects to."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-len")
        )
        await reader.readexactly(length)
        await asyncio.sleep(PREFILL_S)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(TOKENS):
            writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
            await writer.drain()
            await asyncio.sleep(TOKEN_S)
        writer.write(b"0\r\n\r\n")
        writer.close()

    tcp = await asyncio.start_server(answer, "127.0.0.1", port)
    unix = await asyncio.start_unix_server(answer, str(Path(folder) / SOCKET))
    await asyncio.gather(tcp.serve_forever(), unix.serve_forever())


async def stream(port: int, key: str) -> tuple[float, int, list[float]]:
    """Return the seconds to the first token of one chat, the number of tokens, and the seconds between chunks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    started = time.perf_counter()
    writer.write(
        f"{head}Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    )
    first, tokens, gaps = 0.0, 0, []
    last = started
    while tokens < TOKENS:
        tokens += (await reader.readuntil(b"\n\n")).count(b"data: ")
        now = time.perf_counter()
        if first:
            gaps.append(now - last)
        first = first or now - started
        last = now
    writer.close()
    return first, tokens, gaps


async def run(port: int, key: str, streams: int) -> tuple[float, float, float]:
    """Return the median seconds to the first token, tokens a second of all streams, and the p99 between chunks."""
    started = time.perf_counter()
    found = await asyncio.gather(*(stream(port, key) for _ in range(streams)))
    took = time.perf_counter() - started
    gaps = [gap for _, _, between in found for gap in between]
    rate = sum(tokens for _, tokens, _ in found) / took
    return statistics.median(first for first, _, _ in found), rate, statistics.quantiles(gaps, n=100)[98]


def processor_s(nginx: psutil.Process) -> float:
    """Return the processor time of nginx and its workers."""
    times = [process.cpu_times() for process in (nginx, *nginx.children())]
    return sum(each.user + each.system for each in times)


def compare(direct: int, proxied: int, key: str, streams: int, nginx: psutil.Process) -> None:
    """Print the ratios over 11 pairs, after one warm-up pair, and nginx's processor time."""
    pairs = []
    before = processor_s(nginx)
    for _ in range(12):
        through = asyncio.run(run(proxied, key, streams))
        pairs.append((through, asyncio.run(run(direct, key, streams))))
    chunks = len(pairs) * streams * TOKENS
    print(
        f"nginx: {(processor_s(nginx) - before) * 1000 / chunks * 1000:.1f} ms of processor time for 1,000 chunks"
    )
    del pairs[0]
    added = statistics.median(through[2] - bare[2] for through, bare in pairs)
    print(f"99th percentile between two chunks: {added * 1000:.2f} ms more than direct")
    for name, column in (("time to first token", 0), ("tokens a second", 1)):
        ratio = statistics.median(through[column] / bare[column] for through, bare in pairs)
        ours = statistics.median(through[column] for through, _ in pairs)
        theirs = statistics.median(bare[column] for _, bare in pairs)
        print(
            f"{name:20} at {streams}: {ratio:.4f}x  (goal 2 %; {ours:.4f} through nginx, {theirs:.4f} direct)"
        )


def prepare_gateway(folder: Path, port: int) -> tuple[LaunchPlan, Path, str]:
    """Return a plan whose gateway is ready to start, the folder of its release, and a key."""
    directory = StateDir(folder)
    choice = Deployment(name="cost", publish=Publish(expose="127.0.0.1", port=port, tls=False))
    plan = plan_for_host(resolve(choice, profile=library.profile("cpu")), directory, None)
    deployment, keys = directory.create("cost"), Keys(folder)
    with keys.lock():
        key = keys.add("bench")
    files.write_gateway_files(plan, keys, environment=dict(os.environ), say=print)
    release = deployment.releases / plan.hash
    release.mkdir()
    (release / "nginx.conf").write_text(render_gateway(plan))
    return plan, release, key


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--port", type=int, default=18980)
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.port))
        return
    with tempfile.TemporaryDirectory() as name:
        plan, release, key = prepare_gateway(Path(name), arguments.port + 1)
        folder = release.parent.parent
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        program = plan.gateway.program if plan.gateway else None
        command = [str(program), "-p", str(folder), "-e", "stderr", "-c", str(release / "nginx.conf"), *user]
        server = [sys.executable, __file__, "--serve", str(folder), "--port", str(arguments.port)]
        with (
            subprocess.Popen(server) as upstream,
            subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as nginx,
        ):
            try:
                time.sleep(2)
                nginx_itself = psutil.Process(nginx.pid)
                compare(arguments.port, arguments.port + 1, key, arguments.streams, nginx_itself)
            finally:
                nginx.terminate()
                upstream.terminate()


if __name__ == "__main__":
    main()
