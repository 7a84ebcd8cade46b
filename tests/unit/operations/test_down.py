"""What `down --purge` removes, and what it leaves."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_deployment import FakeDeployment

ENGINE, MODEL = "vllm-0.19.1-cpu", "tiny-gemma4"


@pytest.mark.parametrize("shared", [False, True], ids=["its own", "behind links"])
def test_purge_removes_nothing_behind_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, shared: bool
) -> None:
    world = FakeDeployment(tmp_path)
    world.stored(world.plan())
    root = world.state.root
    made = [root / "engines" / ENGINE / "bin", root / "models" / MODEL]
    if shared:
        for name in ("engines", "models"):
            (tmp_path / name).mkdir()
            (root / name).symlink_to(tmp_path / name)
    for folder in made:
        folder.mkdir(parents=True)
    (root / "engines" / f".{ENGINE}.lock").touch()
    assert run(["down", "--purge", "--state-dir", str(root)]) == 0
    assert [folder.exists() for folder in made] == [shared, shared]
    assert (root / "engines" / f".{ENGINE}.lock").exists() is shared
    assert not world.deployment.folder.exists()
    assert capsys.readouterr().err.count("other state directories may use it") == 2 * shared
