"""Drafters on real vLLM 0.32.0 (CPU), by `up` and `bench spec`: the text stays the same, and what is said is right.

The target is in NVFP4_AWQ, so the plugin is at work as well; the drafters are narrower than it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.catalog.metric_names import names_in_query
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.rehearsal.script import COUNT_TEXT, PLAIN_TEXT
from tests.e2e.conftest import Tool
from tests.support.ports import free_port

pytestmark = pytest.mark.vllm
UP = ("up", "--profile", "cpu", "--engine", "vllm-0.32.0-cpu", "--name", "drafters")


@pytest.fixture(scope="module")
def up(tool: Tool) -> Iterator[tuple[str, ...]]:
    """The words of an `up` that lack the drafter; one deployment, which each test has with another drafter."""
    yield (*UP, "--port", str(free_port()), "--drafter")
    tool("down", "--name", "drafters")


# The right one last: the next test measures it.
@pytest.mark.parametrize(
    ("drafter", "percent", "verdict"),
    [
        ("tiny-assistant-short", range(20, 31), "draft fewer tokens: --set drafter_tokens=1"),
        ("mtp", range(85, 101), "keep"),
    ],
)
def test_drafter_is_judged_and_keeps_text(
    tool: Tool, up: tuple[str, ...], drafter: str, percent: range, verdict: str
) -> None:
    done = tool(*up, drafter)
    found = re.search(r"drafter  (.+) \((\d+)% of \d+ drafted tokens accepted; by position ", done.stderr)
    assert found, done.stderr
    assert found[1] == verdict
    assert int(found[2]) in percent
    assert tool("chat", "--name", "drafters", "hello").stdout.strip() == PLAIN_TEXT
    counted = tool("chat", "--name", "drafters", "count").stdout.strip()
    assert len(counted) > len(COUNT_TEXT)
    assert (COUNT_TEXT * 100).startswith(counted)


def test_metrics_page_has_drafter_queries(tool: Tool, up: tuple[str, ...], tmp_path: Path) -> None:
    tool("monitor", "render", *up[1:], "mtp", "-o", str(tmp_path))
    files = ("prometheus/rules.yml", "dashboards/deckard.json")
    asked = {name for file in files for name in names_in_query((tmp_path / file).read_text(encoding="utf-8"))}
    assert "vllm:spec_decode_num_draft_tokens_total" in asked
    base_url = json.loads(tool("status", "--name", "drafters", "--json").stdout)["base_url"]
    assert asked - scrape(metrics_url(base_url)).samples.keys() == set()


def test_plan_shows_bench_spec_result(tool: Tool, up: tuple[str, ...]) -> None:
    before = json.loads(tool("status", "--name", "drafters", "--json").stdout)
    small = ("--concurrency", "2", "--runs", "2", "--requests", "1", "--output-tokens", "16")
    record = json.loads(tool("bench", "spec", "--name", "drafters", "--tokens", "4", *small, "--json").stdout)
    (tried,) = record["tried"]
    assert (tried["tokens"], len(tried["by_position"])) == (4, 4)
    assert 0.85 <= tried["acceptance"] <= 1
    assert record["recommended"] == (4 if tried["verdict"] == "faster" else 0)
    off, on = (
        json.loads(tool("bench", "show", each, "--json").stdout) for each in (record["off"], tried["record"])
    )
    assert (off["subject"]["drafting"], on["subject"]["drafting"]["method"]) == (None, "mtp")
    after = json.loads(tool("status", "--name", "drafters", "--json").stdout)
    assert (after["plan"], after["answers"]) == (before["plan"], "ready")
    plan = json.loads(tool("plan", *up[1:], "mtp", "--json").stdout)
    assert plan["drafter_measured"]["tried"] == record["tried"]


def test_unfit_drafter_is_refused(tool: Tool) -> None:
    # A deployment of its own: one with a release before would have that back.
    up = (*UP[:-1], "unfit", "--port", str(free_port()), "--drafter", "tiny-assistant-random")
    done = tool(*up, check=False)
    assert done.returncode == 6, done.stderr
    assert "the drafter does not fit: 0% of" in done.stderr
    assert "--drafter none" in done.stderr
    assert "so nothing is running" in done.stderr
