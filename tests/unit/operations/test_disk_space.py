"""The disk space for downloads."""

import os
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.operations.disk_space import check
from deckard_deploy.running.runtime import DiskNeed


def test_needs_of_one_file_system_add_up(tmp_path: Path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    one, other = (
        DiskNeed("the image", tmp_path, free * 2 // 3),
        DiskNeed("m", tmp_path / "not" / "yet", free * 2 // 3),
    )
    check([one])
    check([other])
    with pytest.raises(EnvironmentUnfitError, match=r"for the image, [\d,]+ for m\), and [\d,]+ are free"):
        check([one, other])
