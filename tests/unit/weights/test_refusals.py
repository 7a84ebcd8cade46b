"""Refusals of the hub's metadata, over real HTTP: what the user is told, and what is asked again."""

from collections.abc import Callable
from typing import Any

import pytest

from deckard_deploy.errors import DeployError, IntegrityError, NetworkError
from deckard_deploy.weights import hub
from deckard_deploy.weights.refusals import proxy_refusal, refusal
from tests.support.scripted_hub import scripted_hub

Ask = Callable[..., DeployError]
INVALID = {
    "X-Error-Message": "Invalid credentials in Authorization header",
    "Content-Type": "application/json",
}


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Ask:
    """`ask(status, headers, body)`: the error of a resolve at a hub that answers so."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def error_of(
        status: int, headers: dict[str, str] | None = None, body: str = "{}", **rule: Any
    ) -> DeployError:
        script = {"api": {"status": status, "headers": headers or {}, "body": body, **rule}}
        with scripted_hub(script) as server:
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            with pytest.raises(DeployError) as caught:
                hub.connect().resolve("owner/model", None, backoff_s=0.01)
        assert "\n" not in caught.value.message
        return caught.value

    return error_of


def test_stale_token_is_named_by_its_source(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    error = ask(401, INVALID)
    assert "the token in HF_TOKEN" in error.message
    assert error.hint.startswith("unset HF_TOKEN")
    assert "hf_stale" not in error.message + error.hint
    assert "is not at" in ask(401, {**INVALID, "X-Error-Code": "RepoNotFound"}).message


def test_missing_repository_is_no_stale_token(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "is not at" in ask(401).message


@pytest.mark.parametrize(
    ("status", "words"), [(407, "proxy"), (451, "legal reasons"), (410, "for good"), (511, "login first")]
)
def test_lasting_status_is_explained(ask: Ask, status: int, words: str):
    error = ask(status, {"Content-Type": "text/html"}, "<html></html>")
    assert words in error.message
    assert "try again" not in error.hint


def test_web_filter_is_no_missing_licence(ask: Ask):
    assert "web filter" in ask(403, {"Content-Type": "text/html"}, "<html></html>").message


def test_listing_without_sizes_asks_for_a_lock(ask: Ask):
    body = '{"id": "owner/model", "sha": "' + "a" * 40 + '", "siblings": [{"rfilename": "config.json"}]}'
    error = ask(200, {"Content-Type": "application/json"}, body)
    assert isinstance(error, IntegrityError)
    assert "without sizes and hashes" in error.message
    assert "deckard.lock" in error.hint


def test_rate_limit_is_waited_for_or_named(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    limited = {"RateLimit": '"api";r=0;t=250', "Content-Type": "application/json"}
    error = ask(429, limited)
    assert isinstance(error, NetworkError)
    assert "asks for 250 s" in error.message
    limited["RateLimit"] = '"api";r=0;t=1'
    script = {"api": {"status": 429, "headers": limited, "body": "{}", "times": 1}}
    with scripted_hub(script) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert len(hub.connect().resolve("owner/model", None, backoff_s=0.0).files) == 2


def test_ordinary_refusals_have_no_meaning_here():
    assert refusal(404, host="h", headers={}) is None
    assert refusal(403, host="h", headers={"X-Error-Code": "GatedRepo", "Content-Type": "text/html"}) is None
    assert proxy_refusal("Connection refused") is None
