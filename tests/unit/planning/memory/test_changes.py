"""Changes for a plan that does not fit: each one works, is small, and up to three are returned."""

import pytest

from deckard_deploy.planning.memory.changes import MemoryChange, smallest_changes
from deckard_deploy.planning.memory.fit import memory_of
from deckard_deploy.planning.memory.settings import GIB
from tests.support.sample_choices import choice


def proposed(profile: str, *settings: str, available: int | None = None) -> tuple[MemoryChange, ...]:
    resolved = choice(profile, *settings)
    memory = memory_of(resolved, available=available)
    assert memory.problem()
    return smallest_changes(resolved, memory)


UNFIT = [
    ("rtx-5090", ("max-model-len=131072",)),
    ("rtx-5090", ("max-model-len=262144", "kv-cache-dtype=auto", "max-num-batched-tokens=8192")),
    ("spark", ("gpu-memory-utilization=0.3",)),
    ("spark", ("drafter=deckard-e4b", "max-model-len=262144", "gpu-memory-utilization=0.4")),
    ("spark", ("disable-hybrid-kv-cache-manager=true", "max-model-len=131072")),
    ("h100", ("max-model-len=262144", "gpu-memory-utilization=0.5")),
    ("spark", (f"kv-cache-memory-bytes={100 * GIB}",)),
]


@pytest.mark.parametrize(("profile", "settings"), UNFIT)
def test_every_proposed_change_fits(profile: str, settings: tuple[str, ...]) -> None:
    changes = proposed(profile, *settings)
    assert 1 <= len(changes) <= 3
    for change in changes:
        typed = [option.removeprefix("--set ").split(" (")[0] for option in change.options]
        typed = [option.replace("--drafter ", "drafter=") for option in typed]
        assert memory_of(choice(profile, *settings, *typed)).verdict == "fits", change.options


def test_changes_are_ordered_by_cost() -> None:
    changes = proposed("spark", "disable-hybrid-kv-cache-manager=true", "max-model-len=131072")
    assert [change.options for change in changes] == [
        ("--set disable-hybrid-kv-cache-manager=null",),
        ("--set kv-cache-dtype=fp8",),
        ("--set max-model-len=83968",),
    ]


def test_larger_sets_leave_twice_the_context() -> None:
    changes = proposed(
        "rtx-5090", "max-model-len=262144", "kv-cache-dtype=auto", "max-num-batched-tokens=8192"
    )
    for one in changes:
        for other in changes:
            if one is not other and set(one.options) < set(other.options):
                assert other.length >= 2 * one.length


def test_utilization_is_raised_only_as_needed() -> None:
    (change, *_) = proposed("spark", "gpu-memory-utilization=0.3")
    assert change.options == ("--set gpu-memory-utilization=0.32",)
    lower = choice("spark", "gpu-memory-utilization=0.31")
    assert memory_of(lower).problem()


def test_utilization_is_lowered_to_free_memory() -> None:
    (change, *_) = proposed("spark", available=90 * GIB)
    assert change.options == ("--set gpu-memory-utilization=0.67",)


def test_no_changes_when_nothing_helps() -> None:
    assert proposed("spark", "gpu-memory-utilization=0.05", available=20 * GIB) == ()
