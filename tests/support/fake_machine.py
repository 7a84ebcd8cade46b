"""A machine whose only programs are `uname`, which reports x86_64, and those that a test adds."""

from pathlib import Path

import pytest

SMI = """#!/bin/sh
case "$1" in --query-gpu=*) echo "0, {name}, {capability}, 580.95.05, {memory}, 4, 33, 120, 192.00, P0, 0";; esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the machine's programs, in a working folder without a deckard.yaml."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(programs))
    write_program(programs / "uname", "#!/bin/sh\necho x86_64\n")
    return programs


def write_program(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


def add_gpu(programs: Path, name: str, capability: str, memory_mib: int) -> None:
    """Add an nvidia-smi that reports one GPU."""
    write_program(programs / "nvidia-smi", SMI.format(name=name, capability=capability, memory=memory_mib))
