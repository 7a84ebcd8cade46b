"""The unit watches the deployment, and systemd-analyze accepts it."""

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


PROGRAM = ("/usr/local/bin/deckard-deploy",)


def test_unit_watches_deployment() -> None:
    found = settings(render_unit(built_in("spark"), program=PROGRAM, variables=("DECKARD_HOME=/data",)))
    assert found["ExecStart"] == '"/usr/local/bin/deckard-deploy" "watch" "--name" "spark"'
    assert found["Environment"] == '"DECKARD_HOME=/data"'
    assert (found["Restart"], found["KillMode"], found["RestartPreventExitStatus"]) == (
        "on-failure",
        "process",
        "2 4 6",
    )
    assert found["WantedBy"] == "default.target"


def test_end_of_watch_stops_no_engine() -> None:
    """systemd runs ExecStop also after a main process that a signal has ended (docs/validation/2026-11-30-boot.md)."""
    for system in (False, True):
        assert "ExecStop" not in settings(render_unit(built_in("spark"), program=PROGRAM, system=system))


def test_unit_of_machine_waits_for_docker() -> None:
    found = settings(render_unit(built_in("spark"), program=PROGRAM, system=True))
    assert (found["After"], found["WantedBy"]) == ("network.target docker.service", "multi-user.target")
    process = built_in("spark").model_copy(update={"runtime": "process"})
    assert settings(render_unit(process, program=PROGRAM, system=True))["After"] == "network.target"


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
        systemd_problems(
            render_unit(built_in("spark"), program=("/bin/true",), variables=(f"DECKARD_HOME={text}",)),
            tmp_path,
        )
        == ""
    )


def test_control_systemd_reports_problems(tmp_path: Path) -> None:
    """Control of the test above."""
    unit = render_unit(built_in("spark"), program=(str(tmp_path / "not there"),))
    assert "not there" in systemd_problems(unit, tmp_path)
