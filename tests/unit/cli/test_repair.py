"""The `repair` verb: its output, its dry run and its exit codes."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.weights.safetensors_header import read_header
from tests.support.json_output import checked

SCALE = "model.language_model.layers.0.mlp.up_proj.weight_scale"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    folder = gemma4.write(tmp_path / "damaged", quantization="nvfp4")
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(read_header(path)[SCALE].begin)
        file.write(b"\x7f")
    (folder / "original").mkdir()
    return folder


def test_repair_names_scales_and_the_next_command(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(damaged)]) == 4
    capsys.readouterr()
    new = tmp_path / "new"
    assert run(["repair", str(damaged), "-o", str(new)]) == 0
    output = capsys.readouterr()
    assert output.out == (
        f"scales  {SCALE}  1 to 448, 0 to 0\nleft    original{' ' * (len(SCALE) - 8)}  a folder: not copied\n"
    )
    assert output.err == f"repair   {new} is complete; next: deckard-deploy up --model {new}\n"
    assert run(["inspect", str(new)]) == 0


def test_json_and_dry_run(damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    assert run(["repair", str(damaged), "-o", str(new), "--dry-run", "--json"]) == 0
    output = capsys.readouterr()
    assert checked("repair", output.out) == json.loads(output.out)
    assert json.loads(output.out)["scales"] == [
        {"tensor": SCALE, "file": "model.safetensors", "largest": 1, "zero": 0}
    ]
    assert output.err == f"dry run: would write {new}\n"
    assert not new.exists()


def test_nothing_to_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = gemma4.write(tmp_path / "tiny", quantization="nvfp4")
    assert run(["repair", str(folder), "-o", str(tmp_path / "new")]) == 0
    output = capsys.readouterr()
    assert (output.out, "nothing to repair" in output.err) == ("", True)
    assert not (tmp_path / "new").exists()
