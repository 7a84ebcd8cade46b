"""Base files from a folder, a wheel, a web server and the cache."""

import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.patching.base_files import from_cache, from_package, save_to_cache
from tests.support.patch_set import OLD, PatchSetOnDisk

TARGETS = tuple(OLD)
CONTENT = {target: text.encode() for target, text in OLD.items()}


def test_files_are_read_from_installed_package(on_disk: PatchSetOnDisk):
    base = from_package(on_disk.package, TARGETS)
    assert base.files == CONTENT
    assert str(base.package) == str(on_disk.package)


def test_package_folder_may_have_another_name(on_disk: PatchSetOnDisk, tmp_path: Path):
    assert from_package(on_disk.package.rename(tmp_path / "vllm-src"), TARGETS).files == CONTENT


def test_missing_package_file_is_named(on_disk: PatchSetOnDisk):
    (on_disk.package / "v1/spec_decode/eagle.py").unlink()
    with pytest.raises(EnvironmentUnfitError, match=r"eagle\.py: No such file"):
        from_package(on_disk.package, TARGETS)


def test_cache_returns_saved_files(on_disk: PatchSetOnDisk, tmp_path: Path):
    save_to_cache(tmp_path / "cache", on_disk.base)
    cached = from_cache(tmp_path / "cache", on_disk.patch_set)
    assert cached is not None
    assert cached.files == CONTENT


def test_two_processes_can_save_the_same_file(tmp_path: Path):
    code = """
import pathlib, sys
from deckard_deploy.patching.base_files import BaseFiles, save_to_cache
for _ in range(1000):
    save_to_cache(pathlib.Path(sys.argv[1]), BaseFiles(files={"vllm/a.py": b"x"}, origin="here"))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == ["", ""]
    assert [path.read_bytes() for path in (tmp_path / "cache").iterdir()] == [b"x"]


def test_changed_or_partial_cache_gives_none(on_disk: PatchSetOnDisk, tmp_path: Path):
    cache = tmp_path / "cache"
    save_to_cache(cache, on_disk.base)
    first, second = (cache / patch.base_sha256 for patch in on_disk.patch_set.patches)
    first.write_text("something else")
    assert from_cache(cache, on_disk.patch_set) is None
    first.write_text(OLD[TARGETS[0]])
    second.unlink()
    assert from_cache(cache, on_disk.patch_set) is None
