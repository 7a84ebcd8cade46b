"""`status`: the facts as a table and as JSON."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_deployment import FakeDeployment
from tests.support.json_output import checked


def test_known_facts_are_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeDeployment(tmp_path)
    release, launch = fake.stored(fake.plan())
    release.record(launch.model_copy(update={"state": "failed", "reason": "no kernel"}))
    fake.releases.switch(release)
    command = ["status", "--state-dir", str(fake.state.root)]
    assert run(command) == 6
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: rows[name].strip() for name in ("deployment", "state", "last failure")} == {
        "deployment": "box",
        "state": "missing",
        "last failure": "no kernel",
    }
    assert "base url" not in rows
    assert run([*command, "--json"]) == 6
    assert checked("status", capsys.readouterr().out)["base_url"] is None


def test_several_deployments_are_a_table_and_a_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeDeployment(tmp_path)
    release, launch = fake.stored(fake.plan())
    release.record(launch.model_copy(update={"state": "stopped"}))
    fake.releases.switch(release)
    command = ["status", "--state-dir", str(fake.state.root)]
    assert run([*command, "--all", "--json"]) == 3
    assert [each["condition"] for each in checked("status", capsys.readouterr().out)] == ["stopped"]
    damaged = fake.state.create("two").releases / "000000000000"
    damaged.mkdir()
    (damaged / "launch.json").write_text("{")
    fake.state.deployment("two").current.symlink_to("releases/000000000000")
    assert run(command) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "deployment",
        "condition",
        "base",
        "url",
        "since",
        "model",
        "watch",
        "profile",
        "engine",
    ]
    assert [line.split()[:2] for line in lines[1:]] == [["box", "stopped"], ["two", "unknown"]]
    assert run([*command, "--json"]) == 3
    found = checked("status", capsys.readouterr().out)
    assert [each["deployment"] for each in found] == ["box", "two"]
    assert "missing or damaged" in found[1]["reason"]
    assert run(["status", "--state-dir", str(tmp_path / "none"), "--all"]) == 2
