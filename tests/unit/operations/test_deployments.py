"""What a verb says of a deployment that does not run: a line that starts it."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_deployment import FakeDeployment


@pytest.mark.parametrize(("name", "asks"), [("cpu", "--profile cpu"), ("box", "--profile cpu --name box")])
@pytest.mark.parametrize("verb", [["wait"], ["chat", "hello"], ["bench"]])
def test_hint_names_profile_and_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, asks: str, verb: list[str]
) -> None:
    world = FakeDeployment(tmp_path)
    world.stored(world.plan().model_copy(update={"deployment": name, "profile": "cpu"}))
    world.deployment.folder.rename(world.state.deployment(name).folder)
    assert run([*verb, "--state-dir", str(world.state.root)]) != 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"deckard-deploy up {asks}")
