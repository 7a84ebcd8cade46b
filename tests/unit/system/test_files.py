import os
import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.system.files import (
    UMASK_MODE,
    clear_leftovers,
    link_atomically,
    private_folder,
    read_regular,
    remove_folder,
    temporary_prefix,
    try_write,
    write_atomically,
)
from deckard_deploy.system.processes import identity_of


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_write_is_private_under_any_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", "new")
        private_folder(tmp_path / "b" / "c")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b" / "c").stat().st_mode & 0o777 == 0o700
    assert names(tmp_path) == ["a", "b"]


def test_failed_write_leaves_old_content(tmp_path):
    target = tmp_path / "folder-in-the-way"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(EnvironmentUnfitError, match=r"cannot write .*folder-in-the-way: Is a directory"):
        write_atomically(target, "new")
    assert names(tmp_path) == ["folder-in-the-way"]
    assert names(target) == ["old"]


def test_write_error_names_the_path(tmp_path):
    with pytest.raises(EnvironmentUnfitError, match="cannot write /dev/full/x"):
        write_atomically(tmp_path.__class__("/dev/full/x"), "new")


def test_write_replaces_link(tmp_path):
    (tmp_path / "elsewhere").write_text("safe")
    (tmp_path / "a").symlink_to("elsewhere")
    write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "elsewhere").read_text() == "safe"
    assert not (tmp_path / "a").is_symlink()


def test_link_atomically_replaces_link(tmp_path):
    link_atomically(tmp_path / "current", "releases/1")
    link_atomically(tmp_path / "current", "releases/2")
    assert str((tmp_path / "current").readlink()) == "releases/2"
    assert names(tmp_path) == ["current"]


def test_clear_leftovers_removes_only_leftovers(tmp_path):
    (tmp_path / ".tmp-1").touch()
    (tmp_path / ".tmp-2").mkdir()
    (tmp_path / ".tmp-2" / ".tmp-deep").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ".tmp-4").touch()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / ".tmp-3").symlink_to("outside")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["outside"]
    assert names(tmp_path / "outside") == [".tmp-4", "kept"]
    clear_leftovers(tmp_path, below=True)
    assert names(tmp_path / "outside") == ["kept"]


def test_clear_leftovers_keeps_files_of_live_writer(tmp_path):
    me = identity_of(os.getpid())
    writing, killed = tmp_path / f".tmp-{me}-a", tmp_path / f".tmp-{me.pid}-{me.started - 1}-a"
    for path in (writing, killed):
        path.touch()
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [writing]
    assert writing.name.startswith(temporary_prefix())


def test_remove_folder_and_finish_killed_removal(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_folder(tmp_path / "one")
    assert names(tmp_path) == ["two"]
    (tmp_path / ".tmp-gone-x").mkdir()
    (tmp_path / "two").rename(tmp_path / ".tmp-gone-x" / "two")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc"), lambda path: path.write_text("file")])
def test_private_folder_refuses_link_and_file(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(IntegrityError, match="not a folder of ours"):
        private_folder(tmp_path / "a")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("/etc/hostname"),
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"\xff\xfe"),
    ],
)
def test_read_regular_refuses_other_files(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(IntegrityError, match=str(tmp_path / "a")):
        read_regular(tmp_path / "a")


def test_read_regular_of_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "a")


def test_two_processes_write_the_same_file(tmp_path):
    """As two `verify` do that run at the same time."""
    code = """
import pathlib, sys
from deckard_deploy.system.files import write_atomically
for _ in range(200):
    write_atomically(pathlib.Path(sys.argv[1]), "whole")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "record.json")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == ["", ""]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("record.json", "whole")]


def test_write_clears_leftovers_of_the_same_file(tmp_path):
    me = identity_of(os.getpid())
    killed = f".tmp-{me.pid}-{me.started - 1}-record.json-0a"
    stay = {f".tmp-{me}-record.json-0b", f".tmp-{me.pid}-{me.started - 1}-other.json-0c"}
    for name in (killed, *stay):
        (tmp_path / name).write_text("half")
    write_atomically(tmp_path / "record.json", "text")
    assert set(names(tmp_path)) == {"record.json", *stay}


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_umask_mode_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", "new", mode=UMASK_MODE)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_try_write_returns_false_when_refused(tmp_path):
    assert try_write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert not try_write(tmp_path / "missing" / "a", "new")
