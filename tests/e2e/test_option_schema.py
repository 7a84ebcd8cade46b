"""The committed option schema is what vLLM's own parser says today."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "extract_option_schema.py"
pytestmark = pytest.mark.vllm


def check(python: Path, script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, script, "--check"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("fixture", "version"), [("engine_python", "0.19.1"), ("new_engine_python", "0.32.0")]
)
def test_committed_schema_matches_parser(request: pytest.FixtureRequest, fixture: str, version: str) -> None:
    done = check(request.getfixturevalue(fixture), SCRIPT)
    assert (done.returncode, done.stdout) == (0, f"vllm-{version}.json: as extracted\n"), done.stderr[-2000:]


def test_stale_schema_is_noticed(engine_python: Path, tmp_path: Path) -> None:
    script = tmp_path / "scripts" / SCRIPT.name
    schemas = tmp_path / "deckard_deploy" / "catalog" / "schemas"
    script.parent.mkdir()
    schemas.mkdir(parents=True)
    script.write_text(SCRIPT.read_text())
    stale = schemas / "vllm-0.19.1.json"
    stale.write_text("{}\n")
    assert check(engine_python, script).returncode == 1
    assert stale.read_text() == "{}\n"
