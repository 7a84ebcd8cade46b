"""The figures of keys, from a page of metrics."""

import prometheus_client

from deckard_deploy.measuring.metrics import parse
from deckard_deploy.operations.key_usage import usage_on


def test_figures_of_a_page_are_by_key() -> None:
    registry = prometheus_client.CollectorRegistry()
    requests = prometheus_client.Counter("deckard_key_requests", "", ["key", "status"], registry=registry)
    requests.labels("alice", "200").inc(3)
    requests.labels("alice", "429").inc(2)
    requests.labels("bob", "200").inc()
    tokens = prometheus_client.Counter("deckard_key_prompt_tokens", "", ["key"], registry=registry)
    tokens.labels("alice").inc(70)
    first = prometheus_client.Histogram(
        "deckard_key_first_token_seconds", "", ["key"], buckets=(1, 2), registry=registry
    )
    first.labels("alice").observe(1.5)
    page = parse(prometheus_client.generate_latest(registry).decode())
    assert [row.model_dump() for row in usage_on("box", page)] == [
        {
            "deployment": "box", "key": "alice", "requests": 5, "errors": 2, "prompt_tokens": 70,
            "generation_tokens": 0, "first_token_s": 1.5,
        },
        {
            "deployment": "box", "key": "bob", "requests": 1, "errors": 0, "prompt_tokens": 0,
            "generation_tokens": 0, "first_token_s": None,
        },
    ]  # fmt: skip
