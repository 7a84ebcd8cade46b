"""The upgrade campaign from this version to itself, and that it notices a violation."""

import signal
from pathlib import Path

import pytest

from deckard_deploy.system.processes import send_signal, wait_gone
from tests.campaigns.upgrade import ROOT, Claims, check_status, run, started_with

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a copy of the checkout has no commits")
def test_upgrade_to_itself_holds_every_claim():
    claims = run("HEAD")
    assert claims.violated == []
    assert claims.held >= 20


def test_killed_supervisor_violates_claims(tmp_path: Path):
    claims = Claims()
    with started_with(ROOT, tmp_path / "killed") as running:
        send_signal(running.state.supervisor, signal.SIGKILL)
        assert wait_gone(running.state.supervisor, 20)
        check_status(running, claims)
    assert claims.violated == ["status: it is running, and answers", "status restarts nothing"]
