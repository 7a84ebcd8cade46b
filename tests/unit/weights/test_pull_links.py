"""Links in a model's folder: their targets are adopted and never changed."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.weights.folder import PRIVATE_FOLDER
from tests.support.pull_folder import BIG, PullFolder


def test_links_into_a_cache_become_files(pull_folder: PullFolder, tmp_path: Path):
    blob = tmp_path / "blob"
    blob.write_bytes(pull_folder.hub.files[BIG])
    pull_folder.folder.mkdir(parents=True)
    (pull_folder.folder / BIG).symlink_to(blob)
    (pull_folder.folder / "config.json").symlink_to("nowhere")
    pull_folder.pull()
    pull_folder.assert_right()
    assert not (pull_folder.folder / BIG).is_symlink()
    assert pull_folder.hub.served(BIG) == 0
    assert blob.read_bytes() == pull_folder.hub.files[BIG]


def test_full_disk_keeps_links_that_were_being_copied(
    pull_folder: PullFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Links to another disk, the usual reason for links in the folder."""
    pull_folder.folder.mkdir(parents=True)
    for name in (BIG, "config.json"):
        (tmp_path / name).write_bytes(pull_folder.hub.files[name])
        (pull_folder.folder / name).symlink_to(tmp_path / name)

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
            pull_folder.pull()
    assert [path.is_symlink() for path in (pull_folder.folder / BIG, pull_folder.folder / "config.json")] == [
        True,
        True,
    ]
    assert list((pull_folder.folder / PRIVATE_FOLDER / "parts").iterdir()) == []
    pull_folder.pull()
    pull_folder.assert_right()
    assert pull_folder.hub.served(BIG) == 0
