"""Files of a repository: safe paths, hashes, and which of them a pull needs."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from deckard_deploy.weights.manifest import Manifest, RemoteFile, hash_file, read_manifest, total_bytes

SHA = "0" * 64


def manifest(*paths: str) -> Manifest:
    return Manifest(
        repo="owner/model",
        commit="a" * 40,
        files=tuple(RemoteFile(path=path, size=2, sha256=SHA) for path in paths),
    )


@pytest.mark.parametrize("path", ["config.json", "sub/a.json", "a..b", ".hidden", "sub/.deckard"])
def test_path_in_the_folder_is_accepted(path: str):
    assert RemoteFile(path=path, size=0, sha256=SHA).path == path


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", r"a\b", "a\x1b[2Jb", ".deckard/record.json"],
)
def test_unsafe_path_is_refused(path: str):
    with pytest.raises(ValidationError, match="a path inside the folder was expected"):
        RemoteFile(path=path, size=0, sha256=SHA)


def test_file_without_hash_is_refused():
    with pytest.raises(ValidationError, match="sha256 or git_blob is needed"):
        RemoteFile(path="a", size=0)


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b")])
def test_conflicting_paths_are_refused(paths: tuple[str, ...]):
    with pytest.raises(ValidationError, match="twice, or is both a file and a folder"):
        manifest(*paths)


def test_code_and_other_formats_are_not_needed():
    found = manifest("config.json", "tool.py", "model.bin", "x.gguf", ".gitattributes", "model.safetensors")
    assert [file.path for file in found.needed if file.path != "model.bin"] == [
        "config.json",
        "model.safetensors",
    ]
    assert total_bytes(found.files) == 12


def test_hash_is_of_the_files_own_kind(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    blob = subprocess.run(
        ["git", "hash-object", path], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert hash_file(path, RemoteFile(path="a", size=7, sha256=SHA)) == sha256
    assert hash_file(path, RemoteFile(path="a", size=7, git_blob="0" * 40)) == blob


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"repo": "a"}'])
def test_missing_or_damaged_manifest_is_none(tmp_path: Path, text: str | None):
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_text(text)
    assert read_manifest(path) is None
