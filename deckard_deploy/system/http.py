"""How this tool talks to an endpoint of its own: with its own key, to one certificate, past every proxy."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True)
class Access:
    """What opens the endpoint. pinned: SHA-256 of its certificate in hex; no other is accepted, whoever signed it."""

    key: str | None = field(default=None, repr=False)
    pinned: str | None = None


NO_ACCESS = Access()


def session(access: Access) -> "requests.Session":
    """A session that a proxy of the environment sees nothing of."""
    import requests  # noqa: PLC0415  heavy
    from requests.adapters import HTTPAdapter  # noqa: PLC0415  same

    class Pinned(HTTPAdapter):
        """urllib3 compares the fingerprint, and asks neither an authority nor for the name."""

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
        made.verify = False  # by an authority; the fingerprint is
    return made
