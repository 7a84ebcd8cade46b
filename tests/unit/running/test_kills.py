"""Kills at any moment of `up` and of a write: a part of the campaign, and its control."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("what", [("up", "8"), ("write", "30")])
def test_up_converges_after_kills(what):
    """A fixed part of the campaign; scripts/campaign_kills.py runs thousands of kills."""
    mode, kills = what
    script = Path(__file__).parents[3] / "scripts" / "campaign_kills.py"
    done = subprocess.run(
        [sys.executable, script, mode, "--kills", kills, "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills, 0 violations" in done.stdout


def test_campaign_notices_a_violation():
    """The control: a writer that is not atomic, under the same kills."""
    script = Path(__file__).parents[3] / "scripts" / "campaign_kills.py"
    done = subprocess.run(
        [sys.executable, script, "write", "--kills", "30", "--seed", "1", "--careless"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is half" in done.stdout or "is missing or damaged" in done.stdout
