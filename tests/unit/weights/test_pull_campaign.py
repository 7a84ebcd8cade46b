"""A fixed slice of tests/campaigns/pull.py, which runs thousands, and that it notices a violation."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


def campaign(*arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "tests.campaigns.pull", *arguments, "--seed", "1"]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    "what", [("kill", "--runs", "8"), ("freeze", "--runs", "3"), ("corrupt", "--runs", "20")]
)
def test_campaign_finds_no_violation(what):
    done = campaign(*what)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", [("freeze", "--runs", "4"), ("corrupt", "--runs", "10")])
def test_campaign_notices_a_missing_guard(what):
    done = campaign(*what, "--careless")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "violations" in done.stdout
