"""The filter of requests with a switch, for validate_gateway: one engine serves with the filter and without.

vLLM loads it by --middleware. nginx hands on no header of a client, so only a direct request has the switch.
"""

from typing import Any

from deckard_request_filter import KeyedFilter  # type: ignore[import-not-found]  # of plugins/, on the engine's path

SWITCH = b"x-without-filter"  # validate_gateway.py sends it


class SwitchedFilter:
    """An ASGI class that passes a request with the switch around the filter."""

    def __init__(self, app: Any) -> None:
        self.app, self.filter = app, KeyedFilter(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request to the engine, through the filter or not."""
        switched = any(name == SWITCH for name, _ in scope.get("headers", ()))
        await (self.app if switched else self.filter)(scope, receive, send)
