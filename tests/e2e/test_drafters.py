"""Drafters on real vLLM 0.32.0 (CPU), by `up`: the text stays the same, and the verdict on each drafter is right.

The target is in NVFP4_AWQ, so the plugin is at work as well; the drafters are narrower than it.
"""

import re
from collections.abc import Callable

import pytest

from deckard_deploy.weights.tiny_script import COUNT_TEXT, PLAIN_TEXT
from tests.e2e.conftest import Tool

pytestmark = pytest.mark.vllm
UP = ("up", "--profile", "cpu", "--engine", "vllm-0.32.0-cpu", "--name", "drafters")


@pytest.mark.parametrize(
    ("drafter", "percent", "verdict"),
    [
        ("mtp", range(85, 101), "keep"),
        ("tiny-assistant-short", range(20, 31), "draft fewer tokens: --set drafter_tokens=1"),
    ],
)
def test_a_drafter_is_judged_and_changes_no_word(
    tool: Tool, free_port: Callable[[], int], drafter: str, percent: range, verdict: str
) -> None:
    done = tool(*UP, "--port", str(free_port()), "--drafter", drafter)
    try:
        found = re.search(r"drafter  (.+) \((\d+)% of \d+ drafted tokens accepted; by position ", done.stderr)
        assert found, done.stderr
        assert found[1] == verdict
        assert int(found[2]) in percent
        assert tool("chat", "--name", "drafters", "hello").stdout.strip() == PLAIN_TEXT
        counted = tool("chat", "--name", "drafters", "count").stdout.strip()
        assert len(counted) > len(COUNT_TEXT)
        assert (COUNT_TEXT * 100).startswith(counted)
    finally:
        tool("down", "--name", "drafters")


def test_one_that_does_not_fit_is_refused(tool: Tool, free_port: Callable[[], int]) -> None:
    # A deployment of its own: one with a release before would have that back.
    up = (*UP[:-1], "unfit", "--port", str(free_port()), "--drafter", "tiny-assistant-random")
    done = tool(*up, check=False)
    assert done.returncode == 6, done.stderr
    assert "the drafter does not fit: 0% of" in done.stderr
    assert "--drafter none" in done.stderr
    assert "so nothing runs" in done.stderr
