"""The source of base files that a user names."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.patching.base_file_sources import Source, find_base_files
from tests.support.patch_set import OLD, PatchSetOnDisk

CONTENT = {target: text.encode() for target, text in OLD.items()}


def test_named_source_is_used_and_cached(on_disk: PatchSetOnDisk, tmp_path: Path):
    cache = tmp_path / "cache"
    assert (
        find_base_files(on_disk.patch_set, Source(package=str(on_disk.package)), cache=cache).files == CONTENT
    )
    assert find_base_files(on_disk.patch_set, Source(), cache=cache).origin == f"cache {cache}"


def test_unwritable_cache_is_ignored(on_disk: PatchSetOnDisk, tmp_path: Path):
    (tmp_path / "file").touch()
    found = find_base_files(
        on_disk.patch_set, Source(package=str(on_disk.package)), cache=tmp_path / "file" / "cache"
    )
    assert found.files == CONTENT


def test_two_sources_are_refused(on_disk: PatchSetOnDisk, tmp_path: Path):
    with pytest.raises(BadInputError, match="--wheel cannot be combined"):
        find_base_files(on_disk.patch_set, Source(wheel="x.whl", image="vllm:1"), cache=tmp_path)
