"""Links in a model's folder: their targets are adopted and never changed."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.weights import hub as hub_module
from deckard_deploy.weights.folder import PRIVATE_FOLDER, ModelFolder
from tests.support.hub_server import REPO
from tests.support.pull_folder import BIG, PullFolder


def test_links_into_a_cache_become_files(world: PullFolder, tmp_path: Path):
    blob = tmp_path / "blob"
    blob.write_bytes(world.hub.files[BIG])
    world.folder.mkdir(parents=True)
    (world.folder / BIG).symlink_to(blob)
    (world.folder / "config.json").symlink_to("nowhere")
    world.pull()
    world.assert_right()
    assert not (world.folder / BIG).is_symlink()
    assert world.hub.served(BIG) == 0
    assert blob.read_bytes() == world.hub.files[BIG]


def test_full_disk_keeps_links_that_were_being_copied(
    world: PullFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Links to another disk, the usual reason for links in the folder."""
    world.folder.mkdir(parents=True)
    for name in (BIG, "config.json"):
        (tmp_path / name).write_bytes(world.hub.files[name])
        (world.folder / name).symlink_to(tmp_path / name)

    copied: list[Path] = []

    def full(source: Path, target: Path, really: Callable[[Path, Path], object] = shutil.copyfile) -> None:
        if not copied:
            really(source, target)
            copied.append(target)
            return
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(EnvironmentUnfitError, match="No space left"):
            world.pull()
    assert [path.is_symlink() for path in (world.folder / BIG, world.folder / "config.json")] == [True, True]
    assert list((world.folder / PRIVATE_FOLDER / "parts").iterdir()) == []
    world.pull()
    world.assert_right()
    assert world.hub.served(BIG) == 0


def test_check_records_files_only_after_fsync(world: PullFolder, monkeypatch: pytest.MonkeyPatch):
    """A hash covers only the page cache, but `verify --fast` and `up` trust the record after a power loss."""
    world.pull()
    (world.folder / BIG).unlink()
    (world.folder / BIG).write_bytes(world.hub.files[BIG])
    model = ModelFolder(world.folder)
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


def test_circular_links_are_fetched_again(world: PullFolder):
    world.folder.mkdir(parents=True)
    (world.folder / BIG).symlink_to(BIG)
    (world.folder / "config.json").symlink_to("other")
    (world.folder / "other").symlink_to("config.json")
    world.pull()
    (world.folder / "other").unlink()
    world.assert_right()


def test_linked_folder_is_replaced_by_real_one(world: PullFolder, tmp_path: Path):
    world.hub.files |= {"sub/a.json": b"[1]", "sub/b.json": b"[2]"}
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.json").write_bytes(b"[1]")
    world.folder.mkdir(parents=True)
    (world.folder / "sub").symlink_to(outside)
    world.pull()
    world.assert_right()
    assert not (world.folder / "sub").is_symlink()
    assert (world.hub.served("sub/a.json"), world.hub.served("sub/b.json")) == (0, 3)
    assert [path.name for path in outside.iterdir()] == ["a.json"]  # nothing was written to the target
    shutil.rmtree(world.folder / "sub")
    (world.folder / "sub").symlink_to(outside)
    model, wanted = ModelFolder(world.folder), list(hub_module.connect().resolve(REPO, None).needed)
    assert {one.path for one in model.changed(wanted)} == {"sub/a.json", "sub/b.json"}
    assert any(one.path == "sub/a.json" and "a link to" in one.cause for one in model.check(wanted))


def test_clear_parts_keeps_foreign_files(world: PullFolder, tmp_path: Path):
    disk, ours = tmp_path / "disk", world.folder / PRIVATE_FOLDER
    (disk / "folder").mkdir(parents=True)
    for name in ("mine.txt", f"{'0' * 64}.part", f"{'0' * 64}.journal"):
        (disk / name).write_text("mine")
    ours.mkdir(parents=True)
    (ours / "parts").symlink_to(disk)
    world.pull()
    assert sorted(path.name for path in disk.iterdir()) == ["folder", "mine.txt"]
    (ours / "parts").unlink()
    world.assert_right()
