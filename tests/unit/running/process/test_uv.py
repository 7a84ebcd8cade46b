"""Failures of uv become errors by its wording; test_environment.py runs the real uv."""

import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import DeployError, EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.running.process.uv import _PROGRESS, _error, _watching
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (
            ["Resolved 3 packages", "error: Failed to fetch: x", "cause: Request failed", "cause: no route"],
            NetworkError,
            "Failed to fetch: x: no route",
        ),
        (
            ["error: it failed", "cause: Hash mismatch for a"],
            IntegrityError,
            "it failed: Hash mismatch for a",
        ),
        (
            ["error: it failed", "cause: No space left on device (os error 28)"],
            EnvironmentUnfitError,
            "it failed: No space left on device (os error 28)",
        ),
        (["error: never seen", "cause: a", "cause: b"], EnvironmentUnfitError, "uv: never seen: b"),
        (["a panic"], EnvironmentUnfitError, "uv: a panic: a panic"),
        ([], EnvironmentUnfitError, "uv exited with code 7 and no output"),
    ],
)
def test_error_names_complaint_and_root_cause(lines: list[str], error: type[DeployError], message: str):
    found = _error(lines, 7)
    assert type(found) is error
    assert found.message == message
    assert found.hint


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Prepared 12 packages in 3s", True),
        ("Downloading torch (184.2MiB)", True),
        ("Downloading torch (1.2GiB)", True),
        ("Downloading click (0.1MiB)", False),
        ("Resolved 3 packages in 1ms", False),
    ],
)
def test_stages_and_large_downloads_are_shown(line: str, *, shown: bool):
    assert bool(_PROGRESS.match(line)) is shown


def test_bytes_that_a_process_writes_are_reported(tmp_path: Path):
    code = "import sys; open(sys.argv[1], 'wb').write(bytes(5_000_000)); input()"
    seen: list[int] = []
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "file"], stdin=subprocess.PIPE) as process:
        with _watching(process.pid, seen.append):
            eventually(lambda: seen and seen[-1] >= 5_000_000)
        process.communicate(b"\n")
    assert process.returncode == 0
