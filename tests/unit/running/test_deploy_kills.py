"""Kills at any moment of `up` and of a write: a part of the campaign, and its control."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow
CAMPAIGN = (sys.executable, "-m", "tests.campaigns.kills")


@pytest.mark.parametrize("what", [("up", "8"), ("write", "30")])
def test_up_converges_after_kills(what):
    """A fixed part of the campaign; tests/campaigns/kills.py runs thousands of kills."""
    mode, kills = what
    done = subprocess.run(
        [*CAMPAIGN, mode, "--kills", kills, "--seed", "1"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills, 0 violations" in done.stdout


def test_campaign_notices_a_violation():
    """The control: a writer that is not atomic, under the same kills."""
    done = subprocess.run(
        [*CAMPAIGN, "write", "--kills", "30", "--seed", "1", "--careless"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is half" in done.stdout or "is missing or damaged" in done.stdout
