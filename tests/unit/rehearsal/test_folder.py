"""A generated checkpoint's folder is written whole, once."""

import json
import threading
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.rehearsal.folder import MANIFEST
from deckard_deploy.rehearsal.gemma4 import write


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_complete_checkpoint_is_left_unchanged(tmp_path):
    folder = write(tmp_path / "tiny")
    before = folder.stat().st_ino, (folder / "config.json").stat().st_mtime_ns
    write(folder)
    assert (folder.stat().st_ino, (folder / "config.json").stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / MANIFEST).write_text(json.dumps({"generator_version": 0})),
        lambda folder: (folder / MANIFEST).write_text("{"),
    ],
    ids=["cut file", "missing file", "other version", "cut manifest"],
)
def test_incomplete_checkpoint_is_written_again(tmp_path, damage):
    folder = write(tmp_path / "tiny")
    whole = contents(folder)
    damage(folder)
    assert contents(write(folder)) == whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["tiny"]


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BadInputError, match="holds files that are not a tiny Gemma 4") as caught:
        write(tmp_path)
    assert caught.value.hint
    assert contents(tmp_path) == {"mine.txt": b"precious"}


def test_empty_folder_is_filled(tmp_path):
    assert MANIFEST in contents(write(tmp_path))


def test_concurrent_writers_leave_one_checkpoint(tmp_path):
    whole = contents(write(tmp_path / "alone"))
    threads = [threading.Thread(target=write, args=(tmp_path / "shared",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(tmp_path / "shared") == whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["alone", "shared"]
