"""What changed between two plans, in words."""

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
def test_a_change_is_a_line(settings: list[str], lines: list[str]) -> None:
    assert [str(change) for change in difference(planned(), planned(*settings))] == lines


def test_the_other_way_round_is_the_opposite() -> None:
    (there,), (back,) = (
        difference(planned(), planned("max-num-seqs=8")),
        difference(planned("max-num-seqs=8"), planned()),
    )
    assert (there.before, there.after) == (back.after, back.before)


def test_plans_differ_exactly_when_their_hashes_do() -> None:
    plans = [planned(), planned(), planned("seed=1"), planned("image=x/y:1"), planned("drafter=deckard-e4b")]
    for one in plans:
        for two in plans:
            assert (difference(one, two) == ()) == (one.hash == two.hash)
