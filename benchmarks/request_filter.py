"""The cost of the filter of requests, without vLLM: ENGINE_PYTHON benchmarks/request_filter.py [--chunks 1500]

A stub ASGI application streams 100 chunks of a chat from each of 15 streams, at a total of 1,500 chunks a second. It
runs bare and behind KeyedFilter, alternating, in one process whose processor time is read. Run it with a Python that
has prometheus_client (the engine's, or this tool's). The added latency is the time that a chunk spends in the filter.
"""
# ruff: noqa: ANN401  the messages of ASGI

import argparse
import asyncio
import importlib.util
import statistics
import sys
import time
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "plugins/request-filter/deckard_request_filter.py"
STREAMS, CHUNKS, ROUNDS = 15, 100, 11
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"' + b"Hello? " * 300 + b'"}]}'
EVENT = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":300,"completion_tokens":100}}\n\n'


class Stub:
    """Streams chunks at a pace; 0: as fast as it can. Keeps the seconds that `send` took for each."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self.took: list[float] = []

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in [EVENT] * CHUNKS + [USAGE]:
            begun = time.perf_counter()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.took.append(time.perf_counter() - begun)
            await asyncio.sleep(self.pause_s)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(app: Any) -> None:
    """Send one request, and drop the answer."""

    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        pass

    headers = [(b"x-deckard-key", b"dk-alice"), (b"x-deckard-limits", b"requests=1000000 tokens=1000000000")]
    await app(
        {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}, receive, send
    )


async def measured(app: Any, stub: Stub) -> tuple[float, float]:
    """Return processor milliseconds for 1,000 chunks, and the 99th percentile of a chunk's seconds in `send`."""
    stub.took.clear()
    begun = time.process_time()
    await asyncio.gather(*(ask(app) for _ in range(STREAMS)))
    spent = time.process_time() - begun
    return spent * 1000 / (STREAMS * CHUNKS) * 1000, statistics.quantiles(stub.took, n=100)[98]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=1500, help="chunks a second of all streams")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("deckard_request_filter", FILE)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{FILE} is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules["deckard_request_filter"] = module
    spec.loader.exec_module(module)
    stub = Stub(STREAMS / options.chunks)
    filtered = module.KeyedFilter(stub, "0.19.1")
    pairs = [
        (asyncio.run(measured(filtered, stub)), asyncio.run(measured(stub, stub))) for _ in range(ROUNDS + 1)
    ][1:]
    for name, at, unit in (("CPU ms for 1,000 chunks", 0, 1.0), ("p99 of a chunk, microseconds", 1, 1e6)):
        ours, bare = (statistics.median(pair[side][at] for pair in pairs) * unit for side in (0, 1))
        added = statistics.median(pair[0][at] - pair[1][at] for pair in pairs) * unit
        print(f"{name}: {ours:.2f} filtered, {bare:.2f} bare, {added:.2f} added (median of {ROUNDS} pairs)")


if __name__ == "__main__":
    main()
