"""Parts of memory, and their sizes for a reader."""

from deckard_deploy.planning.memory.fit import MemoryPlan, memory_of
from deckard_deploy.planning.memory.parts import (
    readable_bytes,
)
from deckard_deploy.planning.memory.settings import GIB
from tests.support.sample_choices import choice


def memory(profile: str, *changes: str, available: int | None = None) -> MemoryPlan:
    return memory_of(choice(profile, *changes), available=available)


def test_every_part_has_source_and_range() -> None:
    for profile in ("spark", "b200"):
        for part in memory(profile).parts:
            assert part.source
            assert part.low <= part.expected <= part.high


def test_sizes_are_readable() -> None:
    assert [readable_bytes(size) for size in (10**7, 12 * GIB)] == ["10 MiB", "12.0 GiB"]
