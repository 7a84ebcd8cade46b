"""`./deckard`: .venv is made once, and again where the checkout was moved or copied to."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
# Stands for Python: `-m venv` makes a .venv whose python, as pip's `-e .` does, writes a script that names the place.
PYTHON = """#!/bin/sh
case "$*" in
"-m venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
*"-e .")
    printf '#!/bin/sh\\n# %s/.venv/bin/python\\necho "code of %s"\\n' "$(pwd -P)" "$(pwd -P)" > .venv/bin/deckard-deploy
    chmod +x .venv/bin/deckard-deploy;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    for name in ("deckard", "scripts/venv.sh", "requirements/runtime.txt", "pyproject.toml"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, target)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return folder


def run(checkout: Path) -> tuple[str, bool]:
    """Return what the program prints, and whether .venv was made."""
    environment = {**os.environ, "PYTHON": str(checkout.parent / "python")}
    done = subprocess.run(
        [checkout / "deckard", "--version"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), "making .venv" in done.stderr


def test_environment_is_made_once(checkout: Path) -> None:
    assert run(checkout) == (f"code of {checkout}", True)
    assert run(checkout) == (f"code of {checkout}", False)


def test_moved_checkout_runs(checkout: Path) -> None:
    run(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert run(moved) == (f"code of {moved}", True)


def test_copied_checkout_runs_its_own_code(checkout: Path) -> None:
    run(checkout)
    copy = checkout.with_name("copy")
    shutil.copytree(checkout, copy)
    assert run(copy) == (f"code of {copy}", True)
    assert run(checkout) == (f"code of {checkout}", False)
