"""What the deployments that run on a machine leave for another one."""

from math import ceil

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.planning.memory.beside import (
    Neighbour,
    SharedMachine,
    changes_for_both,
    problem_beside,
    requested,
    smaller_share,
    taken_by,
)
from deckard_deploy.planning.memory.settings import GIB
from deckard_deploy.planning.planner import build_plan
from tests.support.sample_choices import choice

SPARK, CPU = (library.profile(name).hardware for name in ("spark", "cpu"))
TOTAL = int(121.69 * GIB)


def shared(taken: int, *, known: bool = True) -> SharedMachine:
    """Return a Spark on which `box` takes so many bytes."""
    box = Neighbour("box", "spark", "deckard-31b", 8000, (), taken, choice("spark") if known else None)
    return SharedMachine((box,), TOTAL, TOTAL - taken, unified=True)


def test_engine_takes_its_share_or_its_fixed_cache() -> None:
    plan = build_plan(choice("spark"))
    assert taken_by(plan, SPARK, 20 * GIB) == ceil(0.8 * 121.69 * GIB)
    fixed = build_plan(choice("spark", f"kv-cache-memory-bytes={30 * GIB}"))
    assert taken_by(fixed, SPARK, 20 * GIB) == 20 * GIB + 30 * GIB + int(8.7 * GIB)


def test_engine_on_a_cpu_takes_weights_and_cache() -> None:
    plan = build_plan(choice("cpu", "environment.VLLM_CPU_KVCACHE_SPACE=3"))
    assert taken_by(plan, CPU, 1000) == 1000 + 3 * GIB
    assert problem_beside(choice("cpu"), shared(100 * GIB)) == ""


def test_reserve_is_not_for_another_engine() -> None:
    machine = shared(100 * GIB)
    assert machine.usable == TOTAL - 100 * GIB - 8 * GIB
    assert "box and the reserve leave 13.7 GiB" in problem_beside(choice("spark"), machine)
    assert problem_beside(choice("spark", "gpu-memory-utilization=0.1"), machine) == ""


def test_share_below_weights_and_engine_is_not_offered() -> None:
    assert smaller_share(choice("spark"), 50 * GIB, TOTAL) == "gpu-memory-utilization=0.41"
    assert smaller_share(choice("spark"), 20 * GIB, TOTAL) == ""


@pytest.mark.parametrize("taken", [60, 75, 90, 98, 105])
def test_changes_of_both_fit_together(taken: int) -> None:
    found = changes_for_both(choice("spark"), shared(taken * GIB))
    assert found is not None
    shares = []
    for options in (found.options, found.neighbour_options):
        settings = [option.removeprefix("--set ") for option in options]
        shares.append(requested(choice("spark", *settings), TOTAL))
    assert sum(shares) <= TOTAL - 8 * GIB


def test_nothing_is_offered_of_a_neighbour_that_is_not_known() -> None:
    assert changes_for_both(choice("spark"), shared(98 * GIB, known=False)) is None
