"""The `quantize` verb: its explanation, its dry run, its output and its exit codes."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.rehearsal import gemma4
from tests.support import fake_modelopt
from tests.support.json_output import checked


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a complete command line, of a machine on which ModelOpt is installed."""
    export = gemma4.write(tmp_path / "packed", quantization="nvfp4")
    fake_modelopt.install(tmp_path / "state" / "engines", export)
    (tmp_path / "state").chmod(0o700)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    tiny = gemma4.write(tmp_path / "tiny")
    return ["quantize", str(tiny), "--recipe", "nvfp4", "--calibrate", "builtin", "-o", str(tmp_path / "new")]


def test_explain_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "--explain"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["awq-full", "awq-lite", "nvfp4", "svdquant"]


def test_explain_describes_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "--explain", "--recipe", "awq-full"]) == 0
    output = capsys.readouterr().out
    for words in ("alpha_step", "0.1", "min_clip_ratio", "*vision_tower*", "modules that keep BF16"):
        assert words in output
    assert "lowrank" not in output


def test_dry_run_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--dry-run"]) == 0
    output = capsys.readouterr()
    assert "41 linears to NVFP4 by nvfp4, on cpu" in output.err
    assert f"dry run: would write {tmp_path / 'new'}" in output.err
    assert not (tmp_path / "new").exists()


def test_result_is_printed_and_the_next_command(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    output = capsys.readouterr()
    assert "NaN scales        0" in output.out
    assert "for rehearsals only" in output.err
    assert output.err.endswith(f"next: deckard-deploy up --model {tmp_path / 'new'}\n")


def test_json_is_the_report(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--json"]) == 0
    printed = capsys.readouterr().out
    assert checked("quantize", printed) == json.loads(
        (tmp_path / "new" / "quantization-report.json").read_text()
    )


def test_search_without_gpu_is_exit_3(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments[arguments.index("nvfp4")] = "svdquant"
    assert run(arguments) == 3
    assert "recipe svdquant needs a CUDA GPU" in capsys.readouterr().err
