"""The checks of a server's response to a request for bytes, and the iteration over its body."""

import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from requests import Response, exceptions
from urllib3.exceptions import HTTPError

from deckard_deploy.errors import NetworkError
from deckard_deploy.weights.refusals import proxy_refusal, refusal
from deckard_deploy.weights.strict_json import detect_wrong_content

# A kill loses the bytes that are not written yet. Per connection: one piece, the kernel's receive queue
# (twice the size asked for, Linux socket(7)), a TLS record of 16 KiB and 8 KiB in http.client. Eight
# connections stay below 1 MiB.
_PIECE_BYTES = 32 << 10
_QUEUE_BYTES = 32 << 10
# tcpi_rtt in struct tcp_info, linux/tcp.h: it follows 8 bytes and 15 numbers.
_RTT = struct.Struct("68xI")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class RetryableError(Exception):
    """A failure that may pass; `retry_after` in seconds if the server sent Retry-After."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        """Store the cause, a few words, and the pause in seconds that the server asked for."""
        super().__init__(cause)
        self.retry_after = retry_after


class RangeIgnored(Exception):  # noqa: N818  an answer, not an error
    """The server sent the whole file in response to a range request."""


def keep_queue_short(response: Response, *, near_us: int) -> None:
    """Shorten the kernel's receive queue if the server is near, because a kill loses the bytes in it.

    near_us: the longest round trip of a near server, in microseconds. A short queue limits the speed to its
    size per round trip, so it stays long for a server that is far away.
    """
    sock = getattr(response.raw.connection, "sock", None)  # None if the whole body has arrived already
    if sock is None:
        return
    (rtt_us,) = _RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
    if rtt_us <= near_us:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)


def check_status(response: Response, name: str) -> None:
    """Raise RetryableError or NetworkError for a response that does not contain the bytes."""
    status = response.status_code
    if status in (408, 425, 429) or (status >= 500 and status != 511):  # guard: F9
        raise RetryableError(f"HTTP {status}", retry_after_s(response.headers))
    if status in (200, 206):
        _refuse_page(response, name)
        return
    storage = _storage_host(response)
    if storage and _is_signed_address_refused(response):
        raise RetryableError(f"{storage} no longer takes the address that the hub gave (HTTP {status})")
    found = refusal(
        status,
        host=storage or urlsplit(response.url or "").hostname or "the hub",
        headers=response.headers,
        storage=bool(storage),
    )
    if found:
        raise NetworkError(f"{name}: {found.cause}{_proxy()}", hint=found.hint)
    if status in (401, 403):  # guard: F11
        raise NetworkError(
            f"{name}: the hub refuses (HTTP {status}): a gated repository, or a token that is not valid",
            hint="accept the licence on the model's page, then: hf auth login",
        )
    raise NetworkError(f"{name}: HTTP {status}", hint="deckard-deploy lock --check")


def _refuse_page(response: Response, name: str) -> None:
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not name.endswith(".html"):  # guard: F14
        raise NetworkError(
            f"{name}: an HTML page came in place of the file: a login page or a proxy in between{_proxy()}",
            hint="open the hub's address in a browser on this network",
        )


def _storage_host(response: Response) -> str | None:
    """Return the host that the hub redirected to, where it keeps the files; None if the hub itself answered."""
    if not response.history:
        return None
    first, last = urlsplit(response.history[0].url).hostname, urlsplit(response.url).hostname
    return last if last != first else None


def _is_signed_address_refused(response: Response) -> bool:
    """Return True if the store refuses the signature in the address: the hub is asked for another one.

    S3 and CloudFront answer 400, 401 or 403 with XML: `<Code>AccessDenied</Code>`, `Request has expired`.
    """
    if response.status_code not in (400, 401, 403):
        return False
    body = response.raw.read(2048, decode_content=True)
    return b"<Code>" in body or re.search(rb"(?i)expired|time frame", body) is not None


def check_redirect(response: Response, **_: object) -> None:
    """Raise NetworkError for an invalid Location header, and close the connection.

    A response hook of requests, which itself leaves the connection open when it cannot parse the header.
    """
    try:
        urlsplit(response.headers.get("Location", "").encode("latin-1").decode())
    except ValueError as error:
        response.close()
        raise NetworkError(
            f"the hub returned an invalid redirect: {_short(error)}", hint="echo $HF_ENDPOINT"
        ) from error


def check_range(response: Response, *, start: int, end: int, size: int) -> None:
    """Check that a 206 has bytes `start` to `end` - 1 of `size`.

    Raises RetryableError: a cache in between may be wrong.
    """
    _check_length(response, end - start)
    said = response.headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(said)
    # guard: F7
    if not found or found.group(1, 2) != (str(start), str(end - 1)) or found[3] not in (str(size), "*"):
        raise RetryableError(f"asked for bytes {start}-{end - 1}/{size}, and Content-Range is {said[:60]!r}")


def check_whole(response: Response, *, size: int) -> None:
    """Check that a 200 is as long as the file. Raises RetryableError."""
    _check_length(response, size)


def _check_length(response: Response, expected: int) -> None:
    said = response.headers.get("Content-Length", str(expected))
    if said != str(expected):
        wrong_content = detect_wrong_content(response.raw.read(64, decode_content=False))
        instead = f"Content-Length is {said[:20]}"
        if wrong_content:
            instead = f"it is {wrong_content}"
        raise RetryableError(f"{expected} bytes were expected, and {instead}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise RetryableError("the answer is compressed, which was not asked for")


def pieces(response: Response, *, stall_s: float, slowest_bytes_s: int) -> Iterator[memoryview]:
    """Yield the body as it arrives.

    Raises RetryableError if it arrives slower than slowest_bytes_s (bytes per second) over stall_s seconds.
    """
    since = time.monotonic()
    came = 0
    while True:
        piece = response.raw.read1(_PIECE_BYTES, decode_content=False)
        if not piece:
            return
        yield memoryview(piece)
        came += len(piece)
        passed = time.monotonic() - since
        if passed >= stall_s:
            if came < slowest_bytes_s * passed:  # guard: F10
                raise RetryableError(f"stalled: {came / passed:.0f} bytes/s for {passed:.0f} s")
            since = time.monotonic()
            came = 0


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn errors of requests and urllib3 into RetryableError, or NetworkError if a retry cannot help."""
    try:
        yield
    except exceptions.SSLError as error:
        raise NetworkError(
            f"the hub's certificate is not accepted: {_short(error)}",
            hint="date, and: echo $REQUESTS_CA_BUNDLE",
        ) from error
    except exceptions.ProxyError as error:
        found = proxy_refusal(str(error))
        if found:
            raise NetworkError(f"{found.cause}{_proxy()}", hint=found.hint) from error
        raise RetryableError(f"the proxy refuses{_proxy()}: {_short(error)}") from error
    except exceptions.ConnectTimeout as error:
        raise RetryableError("no connection in time") from error
    except (exceptions.Timeout, TimeoutError) as error:
        raise RetryableError("stalled: no byte in time") from error
    except (exceptions.InvalidURL, exceptions.InvalidSchema, exceptions.TooManyRedirects) as error:
        raise NetworkError(
            f"the hub returned an invalid redirect: {_short(error)}", hint="echo $HF_ENDPOINT"
        ) from error
    except (exceptions.RequestException, HTTPError, ConnectionError) as error:
        raise RetryableError(_short(error)) from error


def _short(error: BaseException) -> str:
    """Return the end of the message, the innermost reason, without addresses of objects."""
    text = re.sub(r"<[^>]*>:? ?|\(|\)|'", "", str(error))
    return " ".join(text.split()[-12:])[:120] or type(error).__name__


def _proxy() -> str:
    """Return " (VARIABLE is ADDRESS)" for the proxy in the environment, without its password, else ""."""
    for name in _PROXY_VARIABLES:
        value = os.environ.get(name)
        if value:
            parts = urlsplit(value)
            address = f"{parts.scheme}://{parts.hostname}"
            if parts.port:
                address += f":{parts.port}"
            return f" ({name} is {address})"
    return ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the pause that the server asks for in seconds; None if it names none.

    Retry-After (RFC 9110, 10.2.3) is a number of seconds, or a date. The hub sends `RateLimit: "resolvers";r=0;t=45`:
    nothing is left, and the window ends in t seconds (huggingface.co/docs/hub/rate-limits).
    """
    said = headers.get("Retry-After", "").strip()
    if not said:
        ends = re.findall(r"r=0\s*;\s*t=(\d{1,6})(?!\d)", headers.get("RateLimit", ""), re.ASCII)
        return max(map(float, ends), default=None)
    if said.isascii() and said.isdigit() and len(said) < 10:
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):  # an invalid date, or one out of range
        return None
