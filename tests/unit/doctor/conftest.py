"""A small host in a folder: files below a root, and programs that print what real ones were seen to print."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deckard_deploy.doctor.host import Host

Program = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """`program("nvidia-smi", "echo text")`: a shell script of that name, on the host's PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "sleep", "head", "yes"):
        (folder / name).symlink_to(
            next(Path(p, name) for p in os.defpath.split(":") if p and Path(p, name).exists())
        )

    def write(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return write


@pytest.fixture
def host(tmp_path: Path, root: Path, program: Program) -> Host:  # noqa: ARG001  it makes the folder of programs
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}
    return Host(environment=environment, root=root, timeout_s=20.0)
