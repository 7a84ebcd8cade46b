"""Differences between two plans as lines of text."""

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.planning.difference import difference
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan


def planned(*settings: str) -> LaunchPlan:
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    return build_plan(resolve(deployment, profile=library.profile("spark")))


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ([], []),
        (["max-num-seqs=8"], ["~ --max-num-seqs 4 -> 8"]),
        (["enforce-eager=true"], ["+ --enforce-eager"]),
        (["max-num-batched-tokens=null"], ["- --max-num-batched-tokens 8192"]),
        (["enable-auto-tool-choice=null"], ["- --enable-auto-tool-choice"]),
        (["enable-prefix-caching=false"], ["+ --no-enable-prefix-caching"]),
        (["publish.port=9000"], ["~ port 8000 -> 9000"]),
        (["environment.VLLM_LOGGING_LEVEL=DEBUG"], ["+ environment.VLLM_LOGGING_LEVEL DEBUG"]),
        (["container.shm_size=null"], ["- container.shm_size 16g"]),
        (["cudagraph-capture-sizes=[1, 2]"], ["+ --cudagraph-capture-sizes 1 2"]),
    ],
)
def test_each_change_is_one_line(settings: list[str], lines: list[str]) -> None:
    assert [str(change) for change in difference(planned(), planned(*settings))] == lines


def test_reversed_difference_swaps_values() -> None:
    (forward,), (backward,) = (
        difference(planned(), planned("max-num-seqs=8")),
        difference(planned("max-num-seqs=8"), planned()),
    )
    assert (forward.before, forward.after) == (backward.after, backward.before)


def test_difference_is_empty_exactly_for_equal_hashes() -> None:
    plans = [planned(), planned(), planned("seed=1"), planned("image=x/y:1"), planned("drafter=deckard-e4b")]
    for one in plans:
        for two in plans:
            assert (difference(one, two) == ()) == (one.hash == two.hash)
