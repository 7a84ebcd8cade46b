"""A real start of the tiny model: what `plan` foresaw is what the engine made."""

import json
import re
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.e2e.conftest import Tool

pytestmark = pytest.mark.vllm
NAME = "reality"


@pytest.fixture(scope="module")
def choice(tool: Tool, free_port: Callable[[], int]) -> Iterator[list[str]]:
    """The options of this module's deployment; nothing of it runs afterwards."""
    yield ["--profile", "cpu", "--name", NAME, "--port", str(free_port())]
    tool("down", "--name", NAME, check=False)


def test_the_plan_is_what_the_engine_makes(tool: Tool, choice: list[str]) -> None:
    planned = json.loads(tool("plan", *choice, "--json").stdout)["memory"]["kv_cache"]
    up = tool("up", *choice)
    log = tool("logs", "--name", NAME, "--tail", "2000").stdout
    tokens = re.search(r"KV cache size: ([\d,]+) tokens", log)
    concurrency = re.search(r"Maximum concurrency for 1,024 tokens per request: ([\d.]+)x", log)
    metrics = requests.get(up.stdout.strip().removesuffix("/v1") + "/metrics", timeout=30).text
    blocks = re.search(r'num_gpu_blocks="(\d+)"', metrics)
    assert tokens
    assert concurrency
    assert blocks
    assert int(tokens[1].replace(",", "")) == planned["tokens"]
    assert float(concurrency[1]) == planned["max_concurrency"]
    assert int(blocks[1]) == planned["blocks"]
    assert f"KV cache of {planned['tokens']:,} tokens" in up.stderr
    assert "as planned" in up.stderr
