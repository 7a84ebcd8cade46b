"""The Hugging Face hub: its address, and the client that talks to it.

The client is in hub_client.py, because huggingface_hub takes 0.3 s to import, and because its import raises
ValueError for an invalid HF_ENDPOINT.
"""

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deckard_deploy.errors import BadInputError

if TYPE_CHECKING:
    from deckard_deploy.weights.hub_client import HubClient


def connect() -> "HubClient":
    """Return the client of the hub at `endpoint()`; nothing is sent yet. Raises BadInputError."""
    address = endpoint()
    from deckard_deploy.weights.hub_client import HubClient  # noqa: PLC0415  see above

    return HubClient(address)


def endpoint() -> str:
    """Return HF_ENDPOINT, or the public hub. Raises BadInputError for an invalid address."""
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        usable = usable and not parts.username and not parts.password
    except ValueError:  # an unclosed bracket, or an invalid port
        usable = False
    if not usable:
        raise BadInputError(
            "HF_ENDPOINT is not an http(s) address without credentials", hint="unset HF_ENDPOINT"
        )
    return address
