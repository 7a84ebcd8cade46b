"""Tests of patched modules on vLLM's own objects, which need vLLM in the same process: run by the engine's Python."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest and hypothesis for the engine's Python, hashes checked, beside its environment and not in it."""
    folder = tmp_path_factory.mktemp("tools")
    locked = REPOSITORY / "requirements" / "engine-tests.txt"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", str(folder)]
    subprocess.run([*pip, "-r", str(locked)], check=True)
    return folder


def test_eagle_patch_on_real_objects(engine_python: Path, tools: Path, tmp_path: Path) -> None:
    command = [
        str(engine_python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:anyio",
        "-p",
        "no:cacheprovider",
        "--noconftest",  # what it imports is not in the engine's environment
        "-c",
        "pyproject.toml",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tools)]),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path),
    }
    done = subprocess.run(
        [*command, "tests/e2e/test_eagle_patch.py"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 20
    assert "skipped" not in done.stdout
