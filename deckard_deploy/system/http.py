"""HTTP sessions with an endpoint of this tool: its own key, one certificate, no proxy."""

from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter


@dataclass(frozen=True)
class EndpointCredentials:
    """Credentials of an endpoint.

    key: the bearer token.
    pinned: SHA-256 of the certificate in hex. No other certificate is accepted, not even a signed one.
    """

    key: str | None = field(default=None, repr=False)
    pinned: str | None = None


ANONYMOUS = EndpointCredentials()


def session(access: EndpointCredentials) -> requests.Session:
    """Return a session that ignores the environment's proxies."""

    class Pinned(HTTPAdapter):
        """Compare the certificate's fingerprint, and check neither its authority nor its name."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(
                *arguments, **options, assert_fingerprint=access.pinned, assert_hostname=False
            )

    made = requests.Session()
    made.trust_env = False  # guard: F58
    if access.key:
        made.headers["Authorization"] = f"Bearer {access.key}"
    if access.pinned:
        made.mount("https://", Pinned())
        made.verify = False  # not by an authority; the fingerprint is verified
    return made
