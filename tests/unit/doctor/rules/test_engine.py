"""The ranges of advisories."""

from dataclasses import replace
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.doctor.rules.deployment import quantization
from deckard_deploy.doctor.rules.engine import Advisory, advisories
from deckard_deploy.doctor.target import target_for_plan
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.system.versions import version_numbers
from tests.support.rule_cases import facts


@pytest.mark.parametrize(
    ("since", "fixed", "release", "is_open"),
    [
        ("0.3.0", "0.22.0", "0.19.1", True),
        ("0.3.0", "0.22.0", "0.3.0", True),
        ("0.3.0", "0.22.0", "0.2.9", False),
        ("0.3.0", "0.22.0", "0.22.0", False),
        ("0.3.0", "0.22.0", "0.100.0", False),
        (None, "0.22.0", "0.1", True),
        ("0.3.0", None, "9.0", True),
    ],
)
def test_advisory_is_open_within_its_range(since: str | None, fixed: str | None, release: str, is_open: bool):  # noqa: FBT001
    one = Advisory(id="i", about="a", since=since, fixed=fixed, here="no", mitigation="none", test="x")
    assert one.is_open(release) is is_open


def test_advisories_are_unique_and_fit_a_table():
    ids = [each.id for each in advisories()]
    assert len(ids) == len(set(ids)) > 0
    for each in advisories():
        assert "|" not in "".join(filter(None, each.model_dump().values()))
        assert all(version_numbers(bound) for bound in (each.since, each.fixed) if bound)


def test_release_with_plugin_loads_the_quantization() -> None:
    resolved = resolve(Deployment(engine="vllm-0.32.0"), profile=library.profile("spark"))
    plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    target = target_for_plan(resolved, plan, models=Path("/m"))
    verdicts = [quantization.judge(facts(), each) for each in (target, replace(target, patches=()))]
    assert [each.severity if each else None for each in verdicts] == ["ok", "fail"]
