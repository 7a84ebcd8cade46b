"""Files that are whole or absent, whoever else writes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.durable import write_whole
from deckard_deploy.errors import EnvironmentUnfitError


def test_two_processes_write_the_same_file_at_once(tmp_path: Path):
    """As two `verify` do, which began together and are done together."""
    code = """
import pathlib, sys
from deckard_deploy.durable import write_whole
for _ in range(200):
    write_whole(pathlib.Path(sys.argv[1]), "whole")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "record.json")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == ["", ""]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("record.json", "whole")]


def test_a_write_that_fails_leaves_nothing_beside_the_file(tmp_path: Path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(EnvironmentUnfitError, match="Is a directory"):
        write_whole(tmp_path / "record.json", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_a_killed_writer_left_goes_and_what_another_writes_stays(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {f".record.json.{pid}.new" for pid in (dead.pid, os.getppid())}
    for name in names:
        (tmp_path / name).write_text("half")
    write_whole(tmp_path / "record.json", "text")
    assert {path.name for path in tmp_path.iterdir()} == {"record.json", f".record.json.{os.getppid()}.new"}
