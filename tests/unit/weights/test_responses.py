"""Responses to a request for bytes: which are retried, which end a pull, and how long to wait."""

import io
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
from requests import exceptions

from deckard_deploy.errors import NetworkError
from deckard_deploy.weights.responses import (
    RetryableError,
    check_range,
    check_redirect,
    check_status,
    check_whole,
    pieces,
    translate_errors,
)


class Body(io.BytesIO):
    """The raw body of a response, as urllib3 has it."""

    def read(self, size: int | None = -1, **_: object) -> bytes:
        return super().read(size)

    def read1(self, size: int | None = -1, **_: object) -> bytes:
        return super().read1(size)


def response(status: int = 200, body: bytes = b"", **headers: str) -> requests.Response:
    found = requests.Response()
    found.status_code = status
    found.raw = Body(body)
    found.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return found


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_passing_status_is_retried(status: int):
    with pytest.raises(RetryableError, match=f"HTTP {status}"):
        check_status(response(status), "model.safetensors")


@pytest.mark.parametrize(
    ("status", "words"), [(401, "gated"), (403, "gated"), (404, "HTTP 404"), (416, "HTTP 416")]
)
def test_lasting_status_ends_the_pull(status: int, words: str):
    with pytest.raises(NetworkError, match=words):
        check_status(response(status), "model.safetensors")


@pytest.mark.parametrize(
    ("status", "words", "hint"),
    [
        (407, "a proxy on the way asks for a login", "HTTPS_PROXY=http://USER"),
        (451, "for legal reasons", "in a browser"),
        (410, "has removed it for good", "another"),
        (511, "this network asks for a login", "in a browser"),
    ],
)
def test_refusal_that_lasts_is_explained(status: int, words: str, hint: str):
    with pytest.raises(NetworkError, match=words) as caught:
        check_status(response(status), "model.safetensors")
    assert hint in caught.value.hint


def redirected(status: int, body: bytes = b"", **headers: str) -> requests.Response:
    """The answer of the host that the hub redirected to."""
    first, last = response(302), response(status, body, **headers)
    first.url, last.url = (
        "https://huggingface.co/owner/model",
        "https://cas-bridge.xethub.hf.co/x?Signature=1",
    )
    last.history = [first]
    return last


S3_EXPIRED = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)


@pytest.mark.parametrize(
    "answer",
    [
        redirected(403, S3_EXPIRED, Content_Type="application/xml"),
        redirected(400, b"<Error><Code>ExpiredToken</Code></Error>"),
        redirected(403, b"Signature not valid in the specified time frame"),
    ],
    ids=["s3", "token", "azure"],
)
def test_expired_signed_address_is_asked_for_again(answer: requests.Response):
    with pytest.raises(RetryableError, match=r"cas-bridge\.xethub\.hf\.co no longer takes the address"):
        check_status(answer, "model.safetensors")


def test_refusal_of_the_storage_host_is_not_the_hubs():
    page = redirected(403, b"<html><title>Blocked by web filter</title></html>", Content_Type="text/html")
    with pytest.raises(NetworkError, match=r"cas-bridge\.xethub\.hf\.co, the storage host") as caught:
        check_status(page, "model.safetensors")
    assert "licence" not in caught.value.message + caught.value.hint


def test_page_of_a_filter_is_not_the_hubs_refusal():
    with pytest.raises(NetworkError, match="a proxy or web filter on the way refuses"):
        check_status(response(403, Content_Type="text/html"), "model.safetensors")
    with pytest.raises(NetworkError, match="gated"):
        check_status(response(403, Content_Type="text/html", X_Error_Code="GatedRepo"), "model.safetensors")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ('"resolvers";r=0;t=45', 45.0),
        ('"api";r=3;t=10, "resolvers";r=0;t=45', 45.0),
        ('"resolvers";r=12;t=45', None),
        ("", None),
        ("r=0;t=99999999999", None),
        ("r=0;t=٣", None),
    ],
)
def test_rate_limit_header_names_the_pause(said: str, seconds: float | None):
    with pytest.raises(RetryableError) as caught:
        check_status(response(429, RateLimit=said), "x")
    assert caught.value.retry_after == seconds


def test_retry_after_wins_over_rate_limit():
    with pytest.raises(RetryableError) as caught:
        check_status(response(429, RateLimit='"api";r=0;t=45', Retry_After="3"), "x")
    assert caught.value.retry_after == 3.0


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Tunnel connection failed: 407 Proxy Authentication Required", "asks for a login"),
        ("Tunnel connection failed: 403 Forbidden", "does not allow this host"),
        ("Tunnel connection failed: 503 Service Unavailable", None),
        ("Cannot connect to proxy.", None),
    ],
)
def test_proxy_that_refuses_for_good_is_not_asked_again(message: str, words: str | None):
    kind = NetworkError if words else RetryableError
    with pytest.raises(kind, match=words or "the proxy refuses"), translate_errors():
        raise exceptions.ProxyError(message)


def test_html_in_place_of_a_file_is_a_login_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    page = response(Content_Type="text/html; charset=utf-8")
    with pytest.raises(NetworkError, match=r"HTTPS_PROXY is http://proxy\.example:3128\)$"):
        check_status(page, "model.safetensors")
    check_status(page, "index.html")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("5", 5.0), ("0", 0.0), ("", None), ("soon", None), ("-1", None), ("9999999999", None), ("٣", None)],
)
def test_retry_after_is_seconds(said: str, seconds: float | None):
    with pytest.raises(RetryableError) as caught:
        check_status(response(503, Retry_After=said), "x")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(("offset_s", "least", "most"), [(100, 90, 101), (-100, 0, 0)])
def test_retry_after_may_be_a_date(offset_s: int, least: float, most: float):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=offset_s), usegmt=True)
    with pytest.raises(RetryableError) as caught:
        check_status(response(503, Retry_After=date), "x")
    assert caught.value.retry_after is not None
    assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize("said", ["bytes 10-19/100", "bytes 10-19/*"])
def test_right_range_is_accepted(said: str):
    check_range(response(206, Content_Range=said, Content_Length="10"), start=10, end=20, size=100)


@pytest.mark.parametrize("said", ["bytes 0-9/100", "bytes 10-18/100", "bytes 10-19/99", "10-19", ""])
def test_other_range_is_retried(said: str):
    with pytest.raises(RetryableError, match="asked for bytes 10-19/100"):
        check_range(response(206, Content_Range=said), start=10, end=20, size=100)


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        ({"Content_Length": "9"}, b"123456789", "Content-Length is 9"),
        ({"Content_Length": "15"}, b"<!doctype html>", "it is an HTML page"),
        ({"Content_Encoding": "gzip"}, b"", "the answer is compressed"),
    ],
)
def test_wrong_body_is_retried(headers: dict[str, str], body: bytes, words: str):
    with pytest.raises(RetryableError, match=words):
        check_whole(response(200, body, **headers), size=10)


def test_body_arrives_in_pieces():
    body = bytes(range(256)) * 400
    found = list(pieces(response(body=body), stall_s=60, slowest_bytes_s=1))
    assert b"".join(found) == body
    assert len(found) > 1


def test_slow_body_is_stalled():
    with pytest.raises(RetryableError, match="stalled: "):
        list(pieces(response(body=b"x" * 100), stall_s=0, slowest_bytes_s=10**12))


def test_location_that_cannot_be_parsed_ends_the_pull():
    with pytest.raises(NetworkError, match="returned an invalid redirect"):
        check_redirect(response(302, Location="http://[::1"))
    check_redirect(response(302, Location="https://storage.example/x"))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (exceptions.SSLError("self-signed certificate"), NetworkError, "certificate is not accepted"),
        (exceptions.ProxyError("403 Forbidden"), RetryableError, "the proxy refuses"),
        (exceptions.ConnectTimeout("x"), RetryableError, "no connection in time"),
        (exceptions.ReadTimeout("x"), RetryableError, "no byte in time"),
        (TimeoutError(), RetryableError, "no byte in time"),
        (exceptions.TooManyRedirects("x"), NetworkError, "returned an invalid redirect"),
        (exceptions.ConnectionError("Connection refused"), RetryableError, "Connection refused"),
        (ConnectionResetError(), RetryableError, "ConnectionResetError"),
    ],
)
def test_error_is_retried_or_final(error: Exception, kind: type[Exception], words: str):
    with pytest.raises(kind, match=words), translate_errors():
        raise error
