"""The folder of a model: its record, links, and leftovers."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.weights import hub as hub_module
from deckard_deploy.weights.folder import PRIVATE_FOLDER, ModelFolder
from deckard_deploy.weights.manifest import RemoteFile
from tests.support.hub_server import REPO
from tests.support.pull_folder import BIG, PullFolder


def test_check_records_files_only_after_fsync(pull_folder: PullFolder, monkeypatch: pytest.MonkeyPatch):
    """A hash covers only the page cache, but `verify --fast` and `up` trust the record after a power loss."""
    pull_folder.pull()
    (pull_folder.folder / BIG).unlink()
    (pull_folder.folder / BIG).write_bytes(pull_folder.hub.files[BIG])
    model = ModelFolder(pull_folder.folder)
    files = list(hub_module.connect().resolve(REPO, None).needed)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(EnvironmentUnfitError, match=rf"{BIG}.*Input/output error"):
            model.check(files)
    assert [file.path for file in model.changed(files)] == [BIG]
    assert model.check(files) == []
    assert model.changed(files) == []


def test_circular_links_are_fetched_again(pull_folder: PullFolder):
    pull_folder.folder.mkdir(parents=True)
    (pull_folder.folder / BIG).symlink_to(BIG)
    (pull_folder.folder / "config.json").symlink_to("other")
    (pull_folder.folder / "other").symlink_to("config.json")
    pull_folder.pull()
    (pull_folder.folder / "other").unlink()
    pull_folder.assert_right()


def test_linked_folder_is_replaced_by_real_one(pull_folder: PullFolder, tmp_path: Path):
    pull_folder.hub.files |= {"sub/a.json": b"[1]", "sub/b.json": b"[2]"}
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.json").write_bytes(b"[1]")
    pull_folder.folder.mkdir(parents=True)
    (pull_folder.folder / "sub").symlink_to(outside)
    pull_folder.pull()
    pull_folder.assert_right()
    assert not (pull_folder.folder / "sub").is_symlink()
    assert (pull_folder.hub.served("sub/a.json"), pull_folder.hub.served("sub/b.json")) == (0, 3)
    assert [path.name for path in outside.iterdir()] == ["a.json"]  # nothing was written to the target
    shutil.rmtree(pull_folder.folder / "sub")
    (pull_folder.folder / "sub").symlink_to(outside)
    model, wanted = ModelFolder(pull_folder.folder), list(hub_module.connect().resolve(REPO, None).needed)
    assert {one.path for one in model.changed(wanted)} == {"sub/a.json", "sub/b.json"}
    assert any(one.path == "sub/a.json" and "a link to" in one.cause for one in model.check(wanted))


def test_clear_parts_keeps_foreign_files(pull_folder: PullFolder, tmp_path: Path):
    disk, ours = tmp_path / "disk", pull_folder.folder / PRIVATE_FOLDER
    (disk / "folder").mkdir(parents=True)
    for name in ("mine.txt", f"{'0' * 64}.part", f"{'0' * 64}.journal"):
        (disk / name).write_text("mine")
    ours.mkdir(parents=True)
    (ours / "parts").symlink_to(disk)
    pull_folder.pull()
    assert sorted(path.name for path in disk.iterdir()) == ["folder", "mine.txt"]
    (ours / "parts").unlink()
    pull_folder.assert_right()


def test_verified_file_is_unchanged_until_written(tmp_path: Path):
    file = RemoteFile(path="a.json", size=2, sha256="0" * 64)
    model = ModelFolder(tmp_path / "model")
    model.folder.mkdir()
    (model.folder / "a.json").write_text("[]")
    assert model.changed([file]) == [file]
    model.record_verified([file])
    assert model.changed([file]) == []
    (model.folder / "a.json").write_text("{}")
    assert model.changed([file]) == [file]


def test_file_behind_a_link_is_never_verified(tmp_path: Path):
    """A container mounts this folder only, and cannot follow the link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.json").write_text("[]")
    model = ModelFolder(tmp_path / "model")
    model.folder.mkdir()
    (model.folder / "sub").symlink_to(outside)
    file = RemoteFile(path="sub/a.json", size=2, sha256="0" * 64)
    model.record_verified([file])
    assert model.changed([file]) == [file]
    assert model.link_to(file) == model.folder / "sub"
