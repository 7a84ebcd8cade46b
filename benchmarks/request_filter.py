"""The cost of the filter of requests, without vLLM: ENGINE_PYTHON benchmarks/request_filter.py [--chunks 1500]

A stub ASGI application streams 100 chunks of a chat from each of 15 streams, at a total of 1,500 chunks a second. It
runs bare and behind KeyedFilter, alternating, in one process whose processor time is read. Each chunk is due by the
clock, whatever became of the one before. The added latency is the time that a chunk spends in the filter. A difference
is the median of pairs, with its interval of 95 % confidence. Run it with a Python that has prometheus_client (the
engine's, or this tool's).
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

from paired import interval  # type: ignore[import-not-found]  # of this folder, which is no package

FILE = Path(__file__).parents[1] / "plugins/request-filter/deckard_request_filter.py"
STREAMS, CHUNKS, ROUNDS = 15, 100, 21
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
        due = time.monotonic()
        for piece in [EVENT] * CHUNKS + [USAGE]:
            begun = time.perf_counter()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.took.append(time.perf_counter() - begun)
            due += self.pause_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
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
        added, low, high = (each * unit for each in interval([pair[0][at] - pair[1][at] for pair in pairs]))
        print(
            f"{name}: {ours:.2f} filtered, {bare:.2f} bare; added {added:.2f}, 95 %: {low:.2f} to {high:.2f} "
            f"({ROUNDS} pairs)"
        )


if __name__ == "__main__":
    main()
