"""The unit watches and stops the deployment, and systemd-analyze accepts it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deckard_deploy.rendering.systemd import render_unit
from tests.support.sample_plans import built_in

HOSTILE = ["/two\nKillMode=none", "/a b/c", '/q"uote', "/d$HOME", "/p%h", "/back\\slash", "/é"]


def settings(unit: str) -> dict[str, str]:
    lines = [line for line in unit.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_unit_watches_and_stops_deployment() -> None:
    found = settings(
        render_unit(built_in("spark"), program="/usr/local/bin/deckard-deploy", state_dir="/data")
    )
    assert found["ExecStart"] == '"/usr/local/bin/deckard-deploy" "watch" "--name" "spark"'
    assert found["ExecStop"] == '"/usr/local/bin/deckard-deploy" "down" "--name" "spark"'
    assert found["Environment"] == '"DECKARD_HOME=/data"'
    assert (found["Restart"], found["KillMode"], found["RestartPreventExitStatus"]) == (
        "on-failure",
        "process",
        "2 6",
    )


def systemd_problems(unit: str, folder: Path) -> str:
    """Return the complaints of systemd-analyze about the unit; "" for a valid one."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    file = folder / "deckard-spark.service"
    file.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    return "\n".join(line for line in done.stderr.splitlines() if "deckard-spark" in line)


@pytest.mark.parametrize("text", ["/plain", *HOSTILE])
def test_systemd_accepts_unit(tmp_path: Path, text: str) -> None:
    assert (
        systemd_problems(render_unit(built_in("spark"), program="/bin/true", state_dir=text), tmp_path) == ""
    )


def test_control_systemd_reports_problems(tmp_path: Path) -> None:
    """Control of the test above."""
    unit = render_unit(built_in("spark"), program=str(tmp_path / "not there"))
    assert "not there" in systemd_problems(unit, tmp_path)
