"""deckard.lock: written in one order, read strictly, compared by entry."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.weights.lockfile import Lock, differences, read, write
from deckard_deploy.weights.manifest import Manifest, RemoteFile

A, B = "a" * 64, "b" * 64
IMAGE = "vllm/vllm-openai:v0.19.1"


def manifest(*files: RemoteFile, commit: str = "1" * 40, license_name: str | None = "gemma") -> Manifest:
    return Manifest(repo="owner/model", commit=commit, license=license_name, files=files)


def file(path: str, digest: str = A) -> RemoteFile:
    return RemoteFile(path=path, size=1, sha256=digest)


def test_written_lock_is_sorted_and_read_unchanged(tmp_path: Path):
    path = tmp_path / "deckard.lock"
    lock = Lock(
        models={"m": manifest(file("b"), file("a"))},
        images={"z": f"sha256:{A}", "a": f"sha256:{B}"},
        patches={"vllm-0.19.1": {"modelopt": A, "eagle": B}},
    )
    write(path, lock)
    found = read(path)
    assert found is not None
    assert [each.path for each in found.models["m"].files] == ["a", "b"]
    assert list(found.images) == ["a", "z"]
    assert list(found.patches["vllm-0.19.1"]) == ["eagle", "modelopt"]
    first = path.read_bytes()
    write(path, found)
    assert path.read_bytes() == first


def test_missing_lock_is_none(tmp_path: Path):
    assert read(tmp_path / "deckard.lock") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"version": 2}', "version"),
        ('{"version": 1, "images": {"x": "latest"}}', "images.x"),
        ('{"version": 1, "surprise": 1}', "surprise"),
        ('{"images": {}, "images": {}}', "duplicate key 'images'"),
        ("<<<<<<< HEAD\n", "not JSON"),
    ],
)
def test_invalid_lock_is_one_line_with_a_hint(tmp_path: Path, text: str, words: str):
    path = tmp_path / "deckard.lock"
    path.write_text(text)
    with pytest.raises(BadInputError) as caught:
        read(path)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert "git checkout" in caught.value.hint


def test_update_replaces_entries_of_the_same_name():
    old = Lock(images={"a": f"sha256:{A}", "b": f"sha256:{A}"})
    assert old.updated(Lock(images={"b": f"sha256:{B}"})).images == {"a": f"sha256:{A}", "b": f"sha256:{B}"}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (Lock(images={IMAGE: f"sha256:{A}"}), Lock(images={IMAGE: f"sha256:{A}"}), []),
        (Lock(), Lock(images={IMAGE: f"sha256:{A}"}), [f"image {IMAGE}: not locked -> sha256:{A}"]),
        (
            Lock(),
            Lock(models={"m": manifest(license_name=None)}),
            ["m: not locked -> owner/model at 111111111111, license not named"],
        ),
        (
            Lock(models={"m": manifest(file("a"), file("b"))}),
            Lock(models={"m": manifest(file("a", B), file("c"), commit="2" * 40)}),
            [
                "m: owner/model at 111111111111 -> owner/model at 222222222222",
                "m: a: aaaaaaaaaaaa -> bbbbbbbbbbbb",
                "m: b: aaaaaaaaaaaa -> not there",
                "m: c: not there -> aaaaaaaaaaaa",
            ],
        ),
        (
            Lock(patches={"vllm-0.19.1": {"eagle": A}}, plugins={"nvfp4-awq": A}),
            Lock(patches={"vllm-0.19.1": {"eagle": B}}, plugins={"nvfp4-awq": B}),
            [
                "patch vllm-0.19.1/eagle: aaaaaaaaaaaa -> bbbbbbbbbbbb",
                "plugin nvfp4-awq: aaaaaaaaaaaa -> bbbbbbbbbbbb",
            ],
        ),
    ],
)
def test_difference_has_a_line_per_entry(old: Lock, new: Lock, lines: list[str]):
    assert list(differences(old, new)) == lines
