"""The command that installs an extra."""

import shlex
import subprocess
import sys

import pytest

from deckard_deploy.system.extras import install_command


@pytest.mark.parametrize("extra", ["cpu", "report"])
def test_command_names_libraries_and_this_python(extra: str) -> None:
    words = shlex.split(install_command(extra))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert words[4:]
    assert not any(
        "deckard" in word for word in words[4:]
    )  # nobody's package of that name, no other checkout


def test_command_runs() -> None:
    """The libraries of the extra are here already, so pip has nothing to fetch."""
    words = shlex.split(install_command("cpu"))
    done = subprocess.run([*words, "--dry-run", "--no-index"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Requirement already satisfied: numpy" in done.stdout
