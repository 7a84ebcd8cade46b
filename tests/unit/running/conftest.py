"""The fixture `world`. Its class is in world.py, which scripts/campaign_kills.py uses too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.running.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()
