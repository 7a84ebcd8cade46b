"""Forced tool calls against a real engine: python -m tests.campaigns.forced_calls ENGINE_PYTHON [--filtered].

Each of `required` and a named function is asked for on each route, streamed and whole, with thinking and without. The
tool is pick_days, which the tiny model does not call by itself: an engine that has no grammar for a forced call
answers with a call of get_weather. --filtered: with the filter of requests. --patched: with the patches of vLLM
0.19.1. Prints a line each: `forced`, `ignored` (with what came instead), or `refused` with its reason. Exits with 1 if
one is ignored.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from deckard_deploy.patching import request_filter
from deckard_deploy.rehearsal import gemma4
from tests.e2e import patched
from tests.e2e.structured_requests import FORCED, FORCED_CASES, MODEL, QUESTION, engine

THINK = {"chat_template_kwargs": {"enable_thinking": True}}
MORE: dict[
    str, tuple[dict[str, Any], dict[str, Any]]
] = {  # path: what each request has, and what turns thinking on
    "/v1/chat/completions": ({"messages": QUESTION, "max_tokens": 200}, THINK),
    "/v1/responses": ({"input": "Hello?", "max_output_tokens": 200}, {"reasoning": {"effort": "high"}}),
    "/v1/messages": ({"messages": QUESTION, "max_tokens": 200}, THINK),
}


def verdict(response: requests.Response) -> tuple[str, str]:
    """Return forced, ignored or refused, and what came."""
    if response.status_code != 200:
        return "refused", f"{response.status_code} {response.json()['error']['message']}"
    called = [name for name in names(response) if name]
    return ("forced" if called == [FORCED["name"]] else "ignored"), f"calls {called}"


def names(response: requests.Response) -> Iterator[str | None]:
    """Yield the name of each call of an answer, whichever its API and whether it is streamed."""
    lines = (
        response.text.splitlines()
        if response.text.startswith(("data:", "event:"))
        else ["data: " + response.text]
    )
    seen: set[str] = set()
    for line in lines:
        if line.startswith("data: {"):
            yield from _names(json.loads(line.removeprefix("data: ")), seen)


def _names(item: Any, seen: set[str]) -> Iterator[str | None]:
    """Yield the names in a document. seen: the calls of earlier events, which the Responses API repeats."""
    if isinstance(item, list):
        for each in item:
            yield from _names(each, seen)
    elif isinstance(item, dict):
        is_call = item.get("type") in ("function_call", "tool_use") or "function" in item
        if is_call and "parameters" not in item:
            name = item.get("name") or item.get("function", {}).get("name")
            if name and (item.get("call_id") or item.get("id") or name) not in seen:
                seen.add(item.get("call_id") or item.get("id") or name)
                yield name
        for key, each in item.items():
            if key not in ("tools", "tool_choice"):
                yield from _names(each, seen)


def tried(url: str) -> Iterator[tuple[str, str]]:
    """Yield the verdict of each request, after printing it."""
    for path, stream, thinking in itertools.product(FORCED_CASES, (False, True), (False, True)):
        asked, turned_on = MORE[path]
        for name, forced in FORCED_CASES[path].items():
            body = {"model": MODEL, "temperature": 0, "stream": stream, **asked, **forced}
            body |= turned_on if thinking else {}
            found, what = verdict(requests.post(url + path, json=body, timeout=300))
            ways = f"{'streamed' if stream else 'whole'}, thinking {'on' if thinking else 'off'}"
            print(f"{found:8} {path} {name}, {ways}: {what}", flush=True)
            yield found, what


def main() -> None:
    """Run the campaign from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", type=Path, help="of the engine's environment")
    parser.add_argument("--filtered", action="store_true")
    parser.add_argument("--patched", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = gemma4.write(folder / "tiny", family="small")
        first = patched.make_overlay(arguments.python, folder / "patched") if arguments.patched else None
        options = []
        if arguments.filtered:
            first = first or folder / "filter"
            request_filter.build(first / request_filter.FILE)
            options = ["--middleware", f"{request_filter.MODULE}.Filter"]
        with engine(arguments.python, checkpoint, first, *options) as url:
            results = list(tried(url))
    sys.exit(any(found == "ignored" for found, _ in results))


if __name__ == "__main__":
    main()
