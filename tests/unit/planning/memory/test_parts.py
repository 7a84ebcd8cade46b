"""Parts of memory, and their sizes for a reader."""

from deckard_deploy.planning.memory.fit import MemoryPlan, memory_of
from deckard_deploy.planning.memory.parts import (
    readable_bytes,
)
from deckard_deploy.planning.memory.settings import GIB
from tests.support.sample_choices import choice

NEWEST = "engine=vllm-0.33.0"


def memory(profile: str, *changes: str, available: int | None = None) -> MemoryPlan:
    return memory_of(choice(profile, *changes), available=available)


def test_every_part_has_source_and_range() -> None:
    for profile in ("spark", "b200"):
        for part in memory(profile).parts:
            assert part.source
            assert part.low <= part.expected <= part.high


def test_sizes_are_readable() -> None:
    assert [readable_bytes(size) for size in (10**7, 12 * GIB)] == ["10 MiB", "12.0 GiB"]


def test_quantized_head_is_a_copy_next_to_the_table() -> None:
    plain, quantized = memory("spark", NEWEST), memory("spark", NEWEST, "lm_head=nvfp4")
    sizes = {part.name: part.expected for part in quantized.parts}
    assert sizes.pop("lm_head") == int(262_144 * 5376 * 0.5625)
    assert sizes == {part.name: part.expected for part in plain.parts}
    assert quantized.kv_bytes() == plain.kv_bytes() - int(262_144 * 5376 * 0.5625)


def test_ranks_share_the_quantized_head() -> None:
    parts = memory("h200", NEWEST, "lm_head=fp8", "tensor-parallel-size=2").parts
    assert next(part.expected for part in parts if part.name == "lm_head") == 262_144 * (5376 + 4) // 2
