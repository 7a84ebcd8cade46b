"""`monitor`: the files that `render` writes, and a deployment that is missing."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.rendering.monitoring import PASSWORD_FILE


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
    assert "no deployments yet" in capsys.readouterr().err


def test_images_may_be_in_a_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prometheus-image", "mirror:5000/prometheus:v3", "--grafana-image", "mirror:5000/grafana:12"]
    assert run(["monitor", "render", "--profile", "spark", "--output", str(tmp_path), *words]) == 0
    lines = (tmp_path / "compose.yaml").read_text().splitlines()
    assert [line.split()[1] for line in lines if "image:" in line] == [words[1], words[3]]
    assert run(["monitor", "render", "--profile", "spark", "--output", str(tmp_path)]) == 0
    assert "image: prom/prometheus:" in (tmp_path / "compose.yaml").read_text()
    capsys.readouterr()
