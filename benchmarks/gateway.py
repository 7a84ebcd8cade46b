"""The cost of the gateway, measured in one run: python benchmarks/gateway.py [--streams 15] [--chunks 1500]

Concurrent streamed chats with the same server, directly and through nginx as the tool renders it. The server is a stub:
it sends each chunk when its own clock says so, whatever became of the one before, and writes into the chunk when it was
sent (the monotonic clock, which all processes of a machine share). So what is measured of a chunk is its way to the
client, and neither the pace of the stub nor its delays under load. Measured too are the time to the first token, tokens
a second, and nginx's processor time. Runs alternate. A difference or a ratio is the median of pairs, with its interval
of 95 % confidence.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from paired import interval  # type: ignore[import-not-found]  # of this folder, which is no package

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

PREFILL_S, TOKENS = 0.05, 100
BODY = (
    b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "' + b"Hello? " * 300 + b'"}]}'
)
EVENT = b'data: {"sent":%d,"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
SENT = re.compile(rb'"sent":(\d+)')


class Run(NamedTuple):
    """The figures of one run. first_s: median to the first token; way_s: 99th percentile of a chunk's way."""

    first_s: float
    tokens_a_second: float
    way_s: float


async def serve(folder: str, port: int, pause_s: float) -> None:
    """Run the stub, on a TCP port and on the socket that nginx connects to."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-len")
        )
        await reader.readexactly(length)
        due = time.monotonic() + PREFILL_S
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(TOKENS):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            event = EVENT % time.monotonic_ns()
            writer.write(head + b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            head = b""
            due += pause_s
        writer.write(b"0\r\n\r\n")
        writer.close()

    tcp = await asyncio.start_server(answer, "127.0.0.1", port)
    unix = await asyncio.start_unix_server(answer, str(Path(folder) / SOCKET))
    await asyncio.gather(tcp.serve_forever(), unix.serve_forever())


async def stream(port: int, key: str) -> tuple[float, list[float]]:
    """Return the seconds to the first token of one chat, and the seconds that each chunk was on its way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    started = time.monotonic()
    writer.write(
        f"{head}Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    )
    first = 0.0
    ways: list[float] = []
    while len(ways) < TOKENS:
        sent = SENT.findall(await reader.readuntil(b"\n\n"))
        now = time.monotonic_ns()
        ways += [(now - int(each)) / 1e9 for each in sent]
        first = first or time.monotonic() - started
    writer.close()
    return first, ways


async def run(port: int, key: str, streams: int) -> Run:
    """Run all streams at the same time."""
    started = time.monotonic()
    found = await asyncio.gather(*(stream(port, key) for _ in range(streams)))
    took = time.monotonic() - started
    ways = [way for _, each in found for way in each]
    first = statistics.median(first for first, _ in found)
    return Run(first, len(ways) / took, statistics.quantiles(ways, n=100)[98])


def processor_s(nginx: psutil.Process) -> float:
    """Return the processor time of nginx and its workers."""
    times = [process.cpu_times() for process in (nginx, *nginx.children())]
    return sum(each.user + each.system for each in times)


def compare(direct: int, proxied: int, key: str, options: argparse.Namespace) -> list[tuple[Run, Run]]:
    """Return the pairs of runs, through nginx and directly, after one to warm up. They begin in turn."""
    pairs = []
    for number in range(options.pairs + 1):
        ports = (proxied, direct) if number % 2 else (direct, proxied)
        found = {port: asyncio.run(run(port, key, options.streams)) for port in ports}
        pairs.append((found[proxied], found[direct]))
    return pairs[1:]


def report(pairs: list[tuple[Run, Run]]) -> None:
    """Print the figures with their intervals."""
    ways = [statistics.median(run.way_s for run in side) * 1000 for side in zip(*pairs, strict=True)]
    added, low, high = (each * 1000 for each in interval([ours.way_s - bare.way_s for ours, bare in pairs]))
    print(f"p99 of a chunk's way: {ways[0]:.2f} ms through nginx, {ways[1]:.2f} ms directly")
    print(f"added p99: {added:.2f} ms, 95 %: {low:.2f} to {high:.2f} ({len(pairs)} pairs)")
    for name, column in (("time to the first token", 0), ("tokens a second", 1)):
        ratio, low, high = interval([ours[column] / bare[column] for ours, bare in pairs])
        theirs = statistics.median(bare[column] for _, bare in pairs)
        print(f"{name}: {ratio:.4f} of direct ({theirs:.3f}), 95 %: {low:.4f} to {high:.4f}")


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
    parser.add_argument("--streams", type=int, default=15)
    parser.add_argument("--chunks", type=int, default=1500, help="chunks a second of all streams")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--port", type=int, default=18980)
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.port, arguments.streams / arguments.chunks))
        return
    with tempfile.TemporaryDirectory() as name:
        plan, release, key = prepare_gateway(Path(name), arguments.port + 1)
        folder = release.parent.parent
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        program = plan.gateway.program if plan.gateway else None
        command = [str(program), "-p", str(folder), "-e", "stderr", "-c", str(release / "nginx.conf"), *user]
        server = [sys.executable, __file__, "--serve", str(folder), "--port", str(arguments.port)]
        server += ["--streams", str(arguments.streams), "--chunks", str(arguments.chunks)]
        with (
            subprocess.Popen(server) as upstream,
            subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as nginx,
        ):
            try:
                time.sleep(2)
                nginx_itself = psutil.Process(nginx.pid)
                before = processor_s(nginx_itself)
                pairs = compare(arguments.port, arguments.port + 1, key, arguments)
                spent = processor_s(nginx_itself) - before
                chunks = (len(pairs) + 1) * arguments.streams * TOKENS
                print(f"nginx: {spent * 1e6 / chunks:.1f} ms of processor time for 1,000 chunks")
                report(pairs)
            finally:
                nginx.terminate()
                upstream.terminate()


if __name__ == "__main__":
    main()
