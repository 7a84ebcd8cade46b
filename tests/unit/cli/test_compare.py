"""The `compare` verb: its screen, its JSON, and the kept side."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_deployment import FakeDeployment
from tests.support.json_output import checked


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDeployment]:
    deployment = FakeDeployment(tmp_path)
    deployment.proven(deployment.plan())
    yield deployment
    deployment.end()


def test_screen_json_and_kept_side(
    fake: FakeDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, kept = tmp_path / "text", tmp_path / "a.json"
    text.write_text(" ".join(f"{number} words of a text." for number in range(200)))
    options = ["--characters", "100", "--passages", "10", "--state-dir", str(fake.state.root)]
    assert run(["compare", "box", "--text", str(text), "--save", str(kept), *options]) == 0
    assert f"{kept} B --text {text}" in capsys.readouterr().err
    assert run(["compare", str(kept), "box", "--text", str(text), *options]) == 0
    screen = capsys.readouterr().out
    assert "no difference seen between box and box on this text" in screen
    assert "1 (1 to 1)" in screen
    assert "100.00% (100.00% to 100.00%)" in screen
    assert "a lower bound" in " ".join(screen.split())
    assert all(len(line) <= 110 for line in screen.splitlines())
    assert run(["compare", str(kept), str(kept), "--json"]) == 0
    found = checked("compare", capsys.readouterr().out)
    assert found["no_difference"] is True
    assert found["kl"]["value"] == 0
    # Other passages are another text.
    assert run(["compare", str(kept), "box", "--text", str(text), *options, "--passages", "11"]) == 2
    assert "asked for other texts" in capsys.readouterr().err
