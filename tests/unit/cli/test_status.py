"""`status`: the facts as a table and as JSON."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_deployment import FakeDeployment


def test_known_facts_are_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeDeployment(tmp_path)
    release, launch = fake.stored(fake.plan())
    release.record(launch.model_copy(update={"state": "failed", "reason": "no kernel"}))
    fake.releases.switch(release)
    command = ["status", "--state-dir", str(fake.state.root)]
    assert run(command) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: rows[name].strip() for name in ("deployment", "state", "last failure")} == {
        "deployment": "box",
        "state": "missing",
        "last failure": "no kernel",
    }
    assert "base url" not in rows
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base_url"] is None
