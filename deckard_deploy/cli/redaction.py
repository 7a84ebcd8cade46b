"""The redaction of messages: no secret of the environment is printed.

The messages of this tool have no secrets in them. Those of libraries may have: URLs and headers.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "[secret]"
_SECRET_NAME = re.compile(r"(?i).*(TOKEN|KEY|SECRET|PASSWORD|PASSWD)(_ID)?$")
_PROXY_NAME = re.compile(r"(?i).*_proxy$|HF_ENDPOINT$")
_MIN_LENGTH = 6  # characters; a shorter secret could be a word of any message


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text with the secrets of the environment hidden, also in the form that they have in URLs."""
    for secret in sorted(_secrets(environment), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets(environment: Mapping[str, str]) -> set[str]:
    """Return every form of every secret that is long enough to be recognised."""
    forms: set[str] = set()
    for name, value in environment.items():
        if _SECRET_NAME.fullmatch(name):
            forms.update(_forms(value.strip()))
        elif _PROXY_NAME.fullmatch(name):
            forms.update(_forms(_password(value)))
    return {form for form in forms if len(form) >= _MIN_LENGTH}


def _forms(secret: str) -> tuple[str, ...]:
    """Return the secret as it is, quoted and unquoted as in a URL, and as repr escapes it."""
    return secret, quote(secret, safe=""), unquote(secret), repr(secret)[1:-1]


def _password(url: str) -> str:
    """Return the password in a URL; an empty string if it has none."""
    try:
        return urlsplit(url).password or ""
    except ValueError:
        if "@" not in url:
            return ""
        return url.partition("@")[0].rpartition(":")[2]
