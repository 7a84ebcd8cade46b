"""Limits and changes of keys through the product: python -m tests.campaigns.limited_keys ENGINES ENGINE.

ENGINES: a folder with the engine, for example vllm-0.32.0-cpu. `up` starts it with a tiny Gemma 4 behind the gateway.
Clients go over the limits of their keys, and while an answer streams, keys are added, rotated, limited and revoked.
Prints a line for each claim. Exits with 1 if one is violated.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from deckard_deploy.rehearsal import gemma4
from tests.campaigns.compare import Tool
from tests.campaigns.upgrade import Claims
from tests.e2e.structured_requests import MODEL, QUESTION
from tests.support.ports import free_port

NAME = "limited"
TOKENS = 900  # of the answer that streams: long enough for the changes, and below the context of 1024


class Client:
    """A client of the deployment."""

    def __init__(self, port: int, key: str) -> None:
        self.url, self.key = f"http://127.0.0.1:{port}/v1/chat/completions", key

    def ask(self, *, stream: bool = False, **body: Any) -> requests.Response:
        asked = {"model": MODEL, "messages": QUESTION, "max_tokens": 8, "stream": stream, **body}
        return requests.post(
            self.url, json=asked, headers={"x-api-key": self.key}, stream=stream, timeout=600
        )


def refusal(response: requests.Response) -> tuple[int, str, int]:
    """Return status, code and the seconds of Retry-After, 0 without it."""
    code = "" if response.ok else response.json()["error"]["code"]
    return response.status_code, code, int(response.headers.get("Retry-After", "0"))


def check_limits(tool: Tool, port: int, claims: Claims) -> None:
    """Go over the requests and the tokens of a minute."""
    by_requests = Client(port, tool("keys", "add", "by-requests", "--requests-per-minute", "2").strip())
    found = [refusal(by_requests.ask()) for _ in range(3)]
    claims.check(f"two requests a minute: {found}", holds=is_limited(found, 2))
    by_tokens = Client(port, tool("keys", "add", "by-tokens", "--tokens-per-minute", "10").strip())
    found = [refusal(by_tokens.ask()) for _ in range(2)]
    claims.check(f"ten tokens a minute: {found}", holds=is_limited(found, 1))
    tool("keys", "limit", "by-tokens")
    claims.check("without limits it is served again", holds=by_tokens.ask().ok)


def is_limited(found: list[tuple[int, str, int]], served: int) -> bool:
    """Return True if the first requests are served, and the last one is refused for less than a minute."""
    status, code, wait_s = found[-1]
    refused = (status, code) == (429, "rate_limit_exceeded") and 0 < wait_s <= 60
    return refused and [each[0] for each in found[:served]] == [200] * served


def check_changes(tool: Tool, port: int, claims: Claims) -> None:
    """Change keys while an answer streams."""
    key = tool("keys", "add", "streaming", "--concurrent", "1").strip()
    client, before = Client(port, key), status(tool)
    lines = client.ask(stream=True, max_tokens=TOKENS, ignore_eos=True).iter_lines()
    first = next(lines)
    found = refusal(client.ask())
    claims.check(
        f"one request at the same time: {found}",
        holds=found[:2] == (429, "rate_limit_exceeded") and found[2] > 0,
    )
    other = Client(port, tool("keys", "add", "other").strip())
    claims.check("a new key is served at once", holds=other.ask().ok)
    rotated = Client(port, tool("keys", "rotate", "other").strip())
    claims.check(f"the rotated key: {refusal(other.ask())}", holds=other.ask().status_code == 401)
    claims.check("its successor is served", holds=rotated.ask().ok)
    tool("keys", "limit", "streaming", "--concurrent", "2")
    claims.check("the new limit holds at once", holds=client.ask().ok)
    tool("keys", "revoke", "streaming")
    claims.check(f"the revoked key: {refusal(client.ask())}", holds=client.ask().status_code == 401)
    tokens, end = rest_of(first, lines)
    claims.check(f"the stream went on to its end: {tokens} events, {end}", holds=end == "length")
    claims.check("the engine is the same", holds=status(tool) == before)


def rest_of(first: bytes, lines: Iterator[bytes]) -> tuple[int, str | None]:
    """Return the number of events of a stream, and why it ended."""
    events, finish = 0, None
    for line in (first, *lines):
        if line.startswith(b"data: {"):
            events += 1
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                finish = choice["finish_reason"] or finish
    return events, finish


def status(tool: Tool) -> tuple[str, int]:
    """Return which engine runs, and how often it was restarted."""
    found = json.loads(tool("status", "--name", NAME, "--json"))
    return found["instance"], found["restarts"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", type=Path)
    parser.add_argument("engine", choices=("vllm-0.19.1-cpu", "vllm-0.32.0-cpu"))
    arguments = parser.parse_args()
    claims = Claims()
    with tempfile.TemporaryDirectory(prefix="limited-") as name:
        folder, port = Path(name), free_port()
        checkpoint = gemma4.write(folder / MODEL)
        tool = Tool(folder, arguments.engines.resolve())
        chosen = (
            "--profile",
            "cpu",
            "--engine",
            arguments.engine,
            "--model",
            str(checkpoint),
            "--name",
            NAME,
        )
        try:
            tool("up", *chosen, "--port", str(port), "--set", "gateway=nginx")
            check_limits(tool, port, claims)
            check_changes(tool, port, claims)
            print(tool("keys", "usage"))
        finally:
            tool("down", "--name", NAME, "--purge", check=False)
    print(f"{claims.held} claims hold, {len(claims.violated)} are violated")
    sys.exit(bool(claims.violated))


if __name__ == "__main__":
    main()
