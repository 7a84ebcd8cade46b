"""`render`: texts on stdout or in a file."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run


def test_output_has_the_text_of_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["render", "compose", "--profile", "spark"]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert text.startswith("#")
    assert run([*command, "-o", str(tmp_path / "compose.yaml")]) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "compose.yaml").read_text(encoding="utf-8") == text


def test_unwritable_output_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", "command", "--profile", "spark", "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: Is a directory\n"
