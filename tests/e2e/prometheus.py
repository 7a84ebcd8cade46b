"""Queries to a Prometheus."""

from typing import Any

import requests


def ask(port: int, query: str) -> list[Any]:
    """The series of the answer; none while it starts (it listens first, and says 503 until it is ready)."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=10)
    except requests.ConnectionError:
        return []
    if answer.status_code == requests.codes.service_unavailable:
        return []
    assert answer.ok, (query, answer.text)
    return list(answer.json()["data"]["result"])
