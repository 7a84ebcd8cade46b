"""`up` on a machine or with a choice that it refuses."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run

UNFIT = ("--profile", "rtx-5090", "--set", "max-model-len=262144", "--set", "kv-cache-dtype=auto")


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a working folder without deckard.yaml, without programs, and a state directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "home"))


def test_up_refuses_unfit_machine_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = tmp_path / "state"
    assert run(["up", "--profile", "b200", "--state-dir", str(state)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "doctor   gpu: nvidia-smi is not installed" in captured.err
    assert "doctor   docker: docker is not installed" in captured.err
    assert "error: this machine does not fit b200: " in captured.err
    assert "--force" in captured.err.splitlines()[-1]
    assert not state.exists()


def test_dry_run_refuses_an_unfit_machine_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["up", "--profile", "b200", "--state-dir", str(tmp_path / "state"), "--dry-run"]) == 3
    assert "error: this machine does not fit b200: " in capsys.readouterr().err


def test_forced_up_reports_findings_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["up", "--profile", "b200", "--state-dir", str(tmp_path / "state"), "--force"]) == 3
    said = capsys.readouterr().err
    assert "doctor   docker: docker is not installed" in said
    assert "does not fit" not in said
    assert "error: docker is not installed" in said  # where it stopped: at docker itself


def test_up_on_cpu_profile_asks_no_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["up", "--profile", "cpu", "--state-dir", str(tmp_path / "state"), "--dry-run"]) == 0
    assert "doctor" not in capsys.readouterr().err


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_up_refuses_unfit_plan_and_writes_nothing(
    dry: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", *UNFIT, *dry]) == 9
    assert "does not fit" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_dry_run_refuses_exposure_without_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "nginx").touch(mode=0o755)
    assert run(["up", "--profile", "cpu", "--expose", "0.0.0.0", "--dry-run"]) == 2
    assert "error: --expose 0.0.0.0 needs a key for clients" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
