"""Every profile's compose file is accepted by compose itself and by the compose specification's schema."""

import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy import api

COMPOSE = sorted((Path(__file__).parents[2] / "compose").glob("*.yaml"))


def accepted(command: list[str], text: str) -> tuple[bool, str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.docker
@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.stem)
def test_compose_accepts_rendered_file(path: Path) -> None:
    ok, said = accepted(["docker", "compose", "-f", "-", "config", "-q"], path.read_text(encoding="utf-8"))
    assert ok, said


@pytest.mark.docker
def test_compose_accepts_eight_replicas() -> None:
    text = api.render(api.Choice(profile="b200", settings=("replicas=8",)))
    ok, said = accepted(["docker", "compose", "-f", "-", "config", "-q"], text)
    assert ok, said


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.stem)
def test_schema_accepts_rendered_file(path: Path) -> None:
    ok, said = accepted([*CHECK, str(path)], "")
    assert ok, said


def test_schema_refuses_wrong_key(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(
        COMPOSE[0].read_text(encoding="utf-8").replace("    image:", "    imaeg:"), encoding="utf-8"
    )
    assert accepted([*CHECK, str(wrong)], "")[0] is False


CHECK = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
