"""`monitor`: what is written is for its owner alone, and the password is made once and shown nowhere."""

import os
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.operations.monitoring import _write
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rendering.monitoring import PASSWORD_FILE, MonitoringSettings, render_monitoring
from tests.support.sample_choices import choice


def written(folder: Path) -> dict[str, str]:
    texts = render_monitoring(build_plan(choice("spark")), MonitoringSettings(folder=str(folder), user="0:0"))
    _write(folder, texts)
    return texts


def test_password_is_created_once_and_private(tmp_path: Path) -> None:
    texts = written(tmp_path / "monitoring")
    file = tmp_path / "monitoring" / PASSWORD_FILE
    password = file.read_text(encoding="utf-8")
    assert len(password) >= 32
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    written(tmp_path / "monitoring")
    assert file.read_text(encoding="utf-8") == password
    written(tmp_path / "other")
    assert (tmp_path / "other" / PASSWORD_FILE).read_text(encoding="utf-8") != password
    assert password not in "".join(texts.values())


def test_written_files_are_private(tmp_path: Path) -> None:
    os.umask(0o022)
    written(tmp_path / "monitoring")
    open_ones = [path for path in (tmp_path / "monitoring").rglob("*") if path.stat().st_mode & 0o077]
    assert open_ones == []


def test_render_writes_no_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["monitor", "render", "--profile", "spark", "--output", str(tmp_path / "out")]) == 0
    assert "put a password into" in capsys.readouterr().err
    files = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert {
        "compose.yaml",
        "prometheus/prometheus.yml",
        "prometheus/rules.yml",
        "dashboards/deckard.json",
    } <= files
    assert PASSWORD_FILE not in files


def test_render_names_unwritable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("in the way", encoding="utf-8")
    assert run(["monitor", "render", "--profile", "spark", "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["monitor", "render", "--profile", "spark"]) == 2
    assert "--output FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["up", "down"])
def test_monitor_without_deployment_exits_2(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["monitor", verb, "--state-dir", str(tmp_path)]) == 2
    assert "nothing was deployed yet" in capsys.readouterr().err
