"""A hub that answers by a script, for a model of two files; without a rule it answers correctly.

The script is JSON: `api` is the rule for metadata, `file` the rule for the weights, `env` is for the client. A rule:

    status, headers, body   the answer
    times                   the rule holds for so many requests; without it for all
    for_s                   the rule holds for so many seconds from its first request on
    from_other_host         the hub redirects to another host first, whose answer it is
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.hub_server import Answer, Hub, content, running

WEIGHTS = "model.safetensors"


class Rule:
    """One rule of a script, and how often it was used."""

    def __init__(self, script: dict[str, Any]) -> None:
        self._script = script
        self._used = 0
        self._ends: float | None = None

    def apply(self, answer: Answer) -> bool:
        """Answer the request by the rule. Return False if the rule does not hold for it."""
        if self._ends is None:
            self._ends = time.monotonic() + self._script.get("for_s", float("inf"))
        if self._used >= self._script.get("times", float("inf")) or time.monotonic() >= self._ends:
            return False
        if self._script.get("from_other_host") and not answer.path.startswith("/other/"):
            port = answer.hub.server.server_address[1]
            answer.reply(302, b"", {"Location": f"http://localhost:{port}/other{answer.path}"})
            return True
        self._used += 1
        body = self._script.get("body", "").encode()
        answer.reply(self._script["status"], body, self._script.get("headers", {}))
        return True


@contextmanager
def scripted_hub(script: dict[str, Any]) -> Iterator[Hub]:
    """Serve the model while the context lasts."""
    hub = Hub({"config.json": b"{}", WEIGHTS: content(300_000)})
    if "api" in script:
        hub.api_rule = Rule(script["api"]).apply
    if "file" in script:
        rule = Rule(script["file"])
        hub.file_rule = lambda answer, name: name == WEIGHTS and rule.apply(answer)
    with running(hub):
        yield hub
