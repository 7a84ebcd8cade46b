"""What a refusal that lasts means: the hub's own, a proxy's in between, or that of the host that stores the files."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_PROXY_LOGIN = (
    "set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT for this command, or go past the proxy with NO_PROXY"
)
# Statuses that no repetition changes (RFC 9110, RFC 7725, RFC 6585).
_STATUSES = {
    402: ("asks for a payment", "the billing page of your account on the hub"),
    407: ("a proxy on the way asks for a login", _PROXY_LOGIN),
    410: ("has removed it for good", "another repository or revision"),
    451: (
        "refuses for legal reasons: the hub withholds it here, or a proxy on the way does",
        "open the model's page in a browser, on this network and on another",
    ),
    511: (
        "this network asks for a login first, by a proxy on the way",
        "open any page in a browser on this network",
    ),
}
# The hub's own errors have one of these; those of a proxy or a web filter have none.
_HUB_HEADERS = ("X-Error-Code", "X-Error-Message")


class Refusal(NamedTuple):
    """The cause of a refusal in one line, and what to do."""

    cause: str
    hint: str


def refusal(status: int, *, host: str, headers: Mapping[str, str], storage: bool = False) -> Refusal | None:
    """Return the meaning of a status that lasts; None if it is the hub's ordinary one, as for a gated repository.

    storage: `host` is the one that the hub redirected to.
    """
    if status in _STATUSES:
        meaning, hint = _STATUSES[status]
        return Refusal(f"{host} answered HTTP {status}: {meaning}", hint)
    if status not in (401, 403):
        return None
    if storage:
        return Refusal(
            f"{host}, the storage host that the hub sent on to, refuses (HTTP {status}): a proxy or web filter on the "
            "way, or a wrong clock",
            f"curl -I https://{host}; date; ask for {host} to be allowed on this network",
        )
    is_page = headers.get("Content-Type", "").startswith("text/html")
    if is_page and not any(name in headers for name in _HUB_HEADERS):
        return Refusal(
            f"a page came from {host} with HTTP {status}: a proxy or web filter on the way refuses",
            f"curl -i https://{host}; ask for {host} to be allowed on this network",
        )
    return None


def proxy_refusal(message: str) -> Refusal | None:
    """Return the meaning of a proxy's refusal to connect; None for a failure that may pass.

    message: of requests (`Tunnel connection failed: 407 Proxy Authentication Required`) or httpx (`407 Proxy ...`).
    """
    found = re.search(r"Tunnel connection failed: (401|403|407|451)\b", message)
    if message.startswith("407 ") or (found and found[1] == "407"):
        return Refusal("the proxy asks for a login (HTTP 407)", _PROXY_LOGIN)
    if found is None:
        return None
    return Refusal(
        f"the proxy refuses to connect (HTTP {found[1]}): it does not allow this host",
        "ask for the hub and its storage hosts to be allowed, or go past the proxy with NO_PROXY",
    )
