"""A copy with changed bytes: its manifest, and what is left after an error."""

import hashlib
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.repaired_folder import RepairedFolder, write
from deckard_deploy.weights.scales import ScaleRepair


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors", "z.json"):
        (source / name).write_bytes(name.encode() * 1_000_000)  # more than one chunk
    return {path.name: path for path in source.iterdir()}


def test_bytes_of_every_chunk_are_replaced(files: dict[str, Path], tmp_path: Path) -> None:
    weights = files["model.safetensors"]
    places = {0: 1, (8 << 20) - 1: 2, 8 << 20: 3, weights.stat().st_size - 1: 4}
    manifest = write(tmp_path / "new", RepairedFolder(files, (ScaleRepair("t", weights, places),), "r"))
    expected = bytearray(weights.read_bytes())
    for place, value in places.items():
        expected[place] = value
    assert (tmp_path / "new" / weights.name).read_bytes() == expected
    assert (tmp_path / "new" / "z.json").read_bytes() == files["z.json"].read_bytes()
    by_name = {file.path: file.sha256 for file in manifest.files}
    assert by_name[weights.name] == hashlib.sha256(expected).hexdigest()
    assert ModelFolder(tmp_path / "new").manifest() == manifest
    assert ModelFolder(tmp_path / "new").changed(manifest.files) == []


def test_other_content_has_another_commit(files: dict[str, Path], tmp_path: Path) -> None:
    first = write(tmp_path / "1", RepairedFolder(files, (), "r"))
    assert write(tmp_path / "2", RepairedFolder(files, (), "r")).commit == first.commit
    files["z.json"].write_bytes(b"other")
    assert write(tmp_path / "3", RepairedFolder(files, (), "r")).commit != first.commit


def test_source_that_cannot_be_read_leaves_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    files["z.json"] = tmp_path / "source"  # a folder has a size, and opening it fails
    with pytest.raises(EnvironmentUnfitError, match="Is a directory"):
        write(tmp_path / "new", RepairedFolder(files, (), "r"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
