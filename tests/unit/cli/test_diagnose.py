"""`diagnose` reads a file or stdin, and prints a table or JSON."""

import io
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.json_output import checked

LOG = "torch.OutOfMemoryError: CUDA out of memory.\n"


def test_file_and_stdin_are_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "engine.log").write_text(LOG)
    assert run(["diagnose", str(tmp_path / "engine.log"), "--json"]) == 0
    from_file = checked("diagnose", capsys.readouterr().out)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LOG.encode())))
    assert run(["diagnose", "-", "--json"]) == 0
    assert checked("diagnose", capsys.readouterr().out) == from_file
    assert from_file["signature"] == "cuda-out-of-memory"
    assert from_file.keys() == {"state", "phase", "signature", "first_fatal_line", "cause", "fix", "source"}


def test_table_has_a_line_for_each_fact(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "engine.log").write_text(LOG)
    assert run(["diagnose", str(tmp_path / "engine.log")]) == 0
    keys = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert keys == ["state", "phase", "signature", "first fatal line", "cause", "fix", "source"]


def test_log_without_failure_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "engine.log").write_text("INFO:     Application startup complete.\n")
    assert run(["diagnose", str(tmp_path / "engine.log")]) == 0
    assert "nothing fatal" in capsys.readouterr().out


def test_exit_code_is_considered(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "engine.log").write_text("")
    assert run(["diagnose", str(tmp_path / "engine.log"), "--exit-code", "143", "--json"]) == 0
    assert checked("diagnose", capsys.readouterr().out)["signature"] == "engine-terminated"
