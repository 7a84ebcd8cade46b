"""Which patches a plan gets."""

import pytest
from pydantic import JsonValue

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.cli.patch_choice import patched
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan

BY_HAND: dict[str, JsonValue] = {"method": "draft_model", "model": "/models/x", "num_speculative_tokens": 3}


@pytest.mark.parametrize(
    ("deployment", "names"),
    [
        (Deployment(), ["serving_chat", "modelopt"]),
        (Deployment(drafter="deckard-e4b"), ["eagle", "serving_chat", "modelopt"]),
        # Without the patch the target's own KV cache would be overwritten, and nothing would say so.
        (Deployment(serve={"speculative-config": BY_HAND}), ["eagle", "serving_chat", "modelopt"]),
    ],
)
def test_a_plan_gets_the_patches_that_it_needs(deployment: Deployment, names: list[str]) -> None:
    resolved = resolve(deployment, profile=library.profile("spark"))
    plan = patched(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    assert [patch.name for patch in plan.patches] == names


def test_somebody_elses_launch_line_gets_none() -> None:
    resolved = resolve(Deployment(), profile=library.profile("spark"), compatibility=library.compatibility("seed"))
    assert patched(build_plan(resolved), resolved, DEFAULT_PATHS.patches).patches == ()
