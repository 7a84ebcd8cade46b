"""What `logs` shows when there is no log any more."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_deployment import FakeDeployment


def test_logs_of_failed_start_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = FakeDeployment(tmp_path)
    release, launch = world.stored(world.plan())
    release.record(launch.model_copy(update={"state": "failed", "reason": "the engine exited"}))
    asked = ["logs", "--state-dir", str(world.state.root), "--tail"]
    assert run([*asked, "200"]) == 0
    assert capsys.readouterr() == ("", "")  # none was kept, as on a full disk
    (release.folder / "failure.log").write_text("the engine exited\nfirst\nlast\n")
    assert run([*asked, "2"]) == 0
    said = capsys.readouterr()
    assert said.out == "first\nlast\n"
    assert f"nothing runs; of the start that failed, from {release.folder}/failure.log:" in said.err
    assert run([*asked, "0"]) == 0
    assert capsys.readouterr().out == ""
    release.record(launch.model_copy(update={"state": "stopped"}))
    assert run([*asked, "2"]) == 0
    assert capsys.readouterr() == ("", "")
