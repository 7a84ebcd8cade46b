"""Sessions with an endpoint: the key, no proxy, and one certificate."""

import pytest

from deckard_deploy.system.http import ANONYMOUS, EndpointCredentials, session


def test_key_is_sent_and_not_shown():
    access = EndpointCredentials(key="dk-secret")
    with session(access) as made:
        assert made.headers["Authorization"] == "Bearer dk-secret"
    assert "dk-secret" not in repr(access)


def test_anonymous_session_sends_no_key():
    with session(ANONYMOUS) as made:
        assert "Authorization" not in made.headers
        assert made.verify is True


def test_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with session(ANONYMOUS) as made:
        settings = made.merge_environment_settings("https://127.0.0.1", {}, None, None, None)
    assert settings["proxies"] == {}
    assert settings["verify"] is True


def test_pinned_fingerprint_replaces_the_authority():
    with session(EndpointCredentials(pinned="ab" * 32)) as made:
        pool = made.get_adapter("https://127.0.0.1").poolmanager.connection_pool_kw  # type: ignore[attr-defined]
        assert (pool["assert_fingerprint"], pool["assert_hostname"]) == ("ab" * 32, False)
        assert made.verify is False
