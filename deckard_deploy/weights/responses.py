"""What a server's answer to a request for bytes means, and its bytes as long as they come."""

import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deckard_deploy.errors import NetworkError
from deckard_deploy.weights.strict_json import impostor

if TYPE_CHECKING:
    from requests import Response

# What a kill loses of a connection: a piece, what waits in the kernel (it takes twice what is asked for as room, Linux
# socket(7)), a TLS record of 16 KiB and 8 KiB in http.client. Eight connections together stay below 1 MiB.
_PIECE = 32 << 10
_QUEUE = 32 << 10
# tcpi_rtt in struct tcp_info, linux/tcp.h: 8 bytes and 15 numbers come before it.
_RTT = struct.Struct("68xI")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Transient(Exception):  # noqa: N818  not an error of the user's: it is tried again
    """It may work the next time; `retry_after` in seconds if the server said so."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        """`cause` in a few words."""
        super().__init__(cause)
        self.retry_after = retry_after


class Ignored(Exception):  # noqa: N818  an answer, not an error
    """The server sent the whole file where a range was asked for."""


def keep_queue_short(response: "Response", *, near_us: int) -> None:
    """Let little wait in the kernel where the server is near: a kill loses what waits there.

    `near_us`: the longest round trip, in microseconds. A short queue bounds the speed to its size per round trip.
    """
    sock = getattr(response.raw.connection, "sock", None)  # none where the whole body has come already
    if sock is None:
        return
    (rtt_us,) = _RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
    if rtt_us <= near_us:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)


def check_status(response: "Response", name: str) -> None:
    """Raise what an answer without the bytes means: Transient, or NetworkError."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:  # guard: F9
        raise Transient(f"HTTP {status}", _retry_after(response))
    if status in (401, 403):  # guard: F11
        raise NetworkError(
            f"{name}: the hub refuses (HTTP {status}): a gated repository, or a token that is not valid",
            hint="accept the licence on the model's page, then: hf auth login",
        )
    if status not in (200, 206):
        raise NetworkError(f"{name}: HTTP {status}", hint="deckard-deploy lock --check")
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not name.endswith(".html"):  # guard: F14
        raise NetworkError(
            f"{name}: an HTML page came in place of the file: a login page or a proxy in between{_proxy()}",
            hint="open the hub's address in a browser on this network",
        )


def check_redirect(response: "Response", **_: object) -> None:
    """A hook of requests, which leaves the connection open when it cannot read a Location. Raises NetworkError."""
    try:
        urlsplit(response.headers.get("Location", "").encode("latin-1").decode())
    except ValueError as error:
        response.close()
        raise NetworkError(
            f"the hub sends on to nowhere: {_short(error)}", hint="echo $HF_ENDPOINT"
        ) from error


def check_range(response: "Response", *, start: int, end: int, size: int) -> None:
    """Check that a 206 holds bytes `start` to `end` - 1 of `size`. Raises Transient: a cache may be wrong."""
    _check_length(response, end - start)
    said = response.headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(said)
    # guard: F7
    if not found or found.group(1, 2) != (str(start), str(end - 1)) or found[3] not in (str(size), "*"):
        raise Transient(f"asked for bytes {start}-{end - 1}/{size}, and Content-Range is {said[:60]!r}")


def check_whole(response: "Response", *, size: int) -> None:
    """Check that a 200 is as long as the file. Raises Transient."""
    _check_length(response, size)


def _check_length(response: "Response", expected: int) -> None:
    said = response.headers.get("Content-Length", str(expected))
    if said != str(expected):
        known = impostor(response.raw.read(64, decode_content=False))
        instead = f"it is {known}" if known else f"Content-Length is {said[:20]}"
        raise Transient(f"{expected} bytes were expected, and {instead}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Transient("the answer is compressed, which was not asked for")


def pieces(response: "Response", *, stall_s: float, slowest_bytes_s: int) -> Iterator[memoryview]:
    """The body as it comes. Raises Transient when it stops, or crawls for stall_s seconds."""
    since, came = time.monotonic(), 0
    while True:
        piece = response.raw.read1(_PIECE, decode_content=False)
        if not piece:
            return
        yield memoryview(piece)
        came += len(piece)
        passed = time.monotonic() - since
        if passed >= stall_s:
            if came < slowest_bytes_s * passed:  # guard: F10
                raise Transient(f"stalled: {came / passed:.0f} bytes/s for {passed:.0f} s")
            since, came = time.monotonic(), 0


@contextmanager
def asking() -> Iterator[None]:
    """Turn what requests and urllib3 raise into Transient, or NetworkError where trying again cannot help."""
    from requests import exceptions  # noqa: PLC0415  heavy
    from urllib3.exceptions import HTTPError  # noqa: PLC0415  with requests

    try:
        yield
    except exceptions.SSLError as error:
        raise NetworkError(
            f"the hub's certificate is not accepted: {_short(error)}",
            hint="date, and: echo $REQUESTS_CA_BUNDLE",
        ) from error
    except exceptions.ProxyError as error:
        raise Transient(f"the proxy refuses{_proxy()}: {_short(error)}") from error
    except exceptions.ConnectTimeout as error:
        raise Transient("no connection in time") from error
    except (exceptions.Timeout, TimeoutError) as error:
        raise Transient("stalled: no byte in time") from error
    except (exceptions.InvalidURL, exceptions.InvalidSchema, exceptions.TooManyRedirects) as error:
        raise NetworkError(
            f"the hub sends on to nowhere: {_short(error)}", hint="echo $HF_ENDPOINT"
        ) from error
    except (exceptions.RequestException, HTTPError, ConnectionError) as error:
        raise Transient(_short(error)) from error


def _short(error: BaseException) -> str:
    """The innermost reason, without addresses of objects."""
    text = re.sub(r"<[^>]*>:? ?|\(|\)|'", "", str(error))
    return " ".join(text.split()[-12:])[:120] or type(error).__name__


def _proxy() -> str:
    """Which variable names a proxy, and which, its password left out."""
    name = next((name for name in _PROXIES if os.environ.get(name)), None)
    if name is None:
        return ""
    parts = urlsplit(os.environ[name])
    return f" ({name} is {parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''})"


def _retry_after(response: "Response") -> float | None:
    """Seconds (RFC 9110, 10.2.3: a number of seconds, or a date); None when nothing usable was said."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit() and len(said) < 10:
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):  # no date, or one past every calendar
        return None
