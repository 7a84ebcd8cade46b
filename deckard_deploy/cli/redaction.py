"""The last look at what people see: no secret of the environment leaves by a message.

Our own code does not put secrets into messages; libraries put URLs and headers into theirs.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "[secret]"
_SECRET_NAME = re.compile(r"(?i).*(TOKEN|KEY|SECRET|PASSWORD|PASSWD)(_ID)?$")
_PROXY_NAME = re.compile(r"(?i).*_proxy$|HF_ENDPOINT$")
_SHORTEST = 6  # shorter ones are words of ordinary messages


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` with the secrets of `environment` hidden, as they are and as URLs write them."""
    for secret in sorted(_secrets(environment), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets(environment: Mapping[str, str]) -> set[str]:
    found = set()
    for name, value in environment.items():
        if _SECRET_NAME.fullmatch(name):
            found.add(value.strip())
        elif _PROXY_NAME.fullmatch(name):
            found.add(_password(value))
    return {form for secret in found for form in _written(secret) if len(form) >= _SHORTEST}


def _written(secret: str) -> tuple[str, ...]:
    return secret, quote(secret, safe=""), unquote(secret), repr(secret)[1:-1]


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return url.partition("@")[0].rpartition(":")[2] if "@" in url else ""
