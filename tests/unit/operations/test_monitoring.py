"""The files of `monitor`: private, with a password that is created once."""

import os
from pathlib import Path

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
