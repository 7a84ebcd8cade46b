"""References, platforms and loopback registries; tests/e2e/test_registry.py asks a real registry."""

import pytest

from deckard_deploy.running.docker import registry

INDEX = [
    {"digest": "sha256:a", "platform": {"os": "linux", "architecture": "amd64"}},
    {"digest": "sha256:b", "platform": {"os": "linux", "architecture": "arm64"}},
]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("vllm/vllm-openai:v0.19.1", "vllm/vllm-openai"),
        ("vllm/vllm-openai@sha256:abc", "vllm/vllm-openai"),
        ("localhost:5000/a/b:1@sha256:abc", "localhost:5000/a/b"),
        ("localhost:5000/a", "localhost:5000/a"),
        ("busybox", "busybox"),
    ],
)
def test_repository_has_no_tag_and_no_digest(reference: str, name: str):
    assert registry.repository(reference) == name


@pytest.mark.parametrize(
    ("platform", "digest"), [("linux/arm64", "sha256:b"), ("linux/s390x", None), ("windows/amd64", None)]
)
def test_index_has_digest_of_platform(platform: str, digest: str | None):
    assert registry._for_platform(INDEX, platform) == digest


@pytest.mark.parametrize("entries", [None, {}, "text", [None, "text", {}], [{"digest": "sha256:a"}]])
def test_odd_index_has_no_digest(entries: object):
    assert registry._for_platform(entries, "linux/amd64") is None


@pytest.mark.parametrize(
    ("reference", "loopback"),
    [
        ("127.0.0.1:5000/a", True),
        ("127.9.9.9/a", True),
        ("localhost:5000/a", True),
        ("10.0.0.1:5000/a", False),
        ("registry.example/a", False),
        ("busybox", False),
    ],
)
def test_only_loopback_registry_may_lack_tls(reference: str, *, loopback: bool):
    assert registry._is_loopback(reference) is loopback
