"""The plan's own answers: hash, base URL, options, drafter, ranks, and one launch of it."""

import json

import pytest
from pydantic import ValidationError

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.plan import LaunchPlan, SpeculativeConfig, plan_hash
from deckard_deploy.planning.planner import build_plan
from tests.support.sample_choices import choice
from tests.support.sample_plans import built_in

PLAN = build_plan(resolve(Deployment(), profile=library.profile("spark")))


def test_hash_survives_json_round_trip() -> None:
    assert len(PLAN.hash) == 12
    assert set(PLAN.hash) <= set("0123456789abcdef")
    assert LaunchPlan.model_validate_json(PLAN.model_dump_json()).hash == PLAN.hash


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/v1"),
        ("0.0.0.0", "http://127.0.0.1:8000/v1"),
        ("::", "http://127.0.0.1:8000/v1"),
        ("::1", "http://[::1]:8000/v1"),
        ("192.0.2.7", "http://192.0.2.7:8000/v1"),
    ],
)
def test_the_base_url_is_one_that_this_host_can_reach(address: str, url: str) -> None:
    assert PLAN.model_copy(update={"address": address}).base_url == url


def test_launched_adds_a_second_served_name() -> None:
    launched = PLAN.launched("deckard-launch-1")
    at = launched.arguments.index("--served-model-name")
    assert launched.arguments[at + 1 : at + 3] == ("deckard-31b", "deckard-launch-1")
    assert tuple(token for token in launched.arguments if token != "deckard-launch-1") == PLAN.arguments


def with_arguments(*arguments: str) -> LaunchPlan:
    return PLAN.model_copy(update={"arguments": ("/models/m", *arguments)})


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((), None),
        (("--seed", "1"), "1"),
        (("--seed=1",), "1"),
        (("--seed=",), ""),
        (("--seed", "-1"), "-1"),
        (("--seed", "1", "2"), "1"),
        (("--seed",), ""),
        (("--seed", "--eager"), ""),
        (("--seed-more", "1"), None),
        (("--other", "seed"), None),
    ],
)
def test_option_is_the_first_value(arguments: tuple[str, ...], value: str | None) -> None:
    assert with_arguments(*arguments).option("seed") == value


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"method": "mtp", "model": "/models/x", "num_speculative_tokens": 4, "quantization": "modelopt"},
            SpeculativeConfig(method="mtp", model="/models/x", num_speculative_tokens=4),
        ),
        ({"method": "ngram"}, SpeculativeConfig(method="ngram", model=None, num_speculative_tokens=None)),
        ({"model": 3}, SpeculativeConfig(method=None, model=None, num_speculative_tokens=None)),
        ([], SpeculativeConfig(method=None, model=None, num_speculative_tokens=None)),
    ],
)
def test_speculative_reads_the_config(config: object, expected: SpeculativeConfig) -> None:
    assert with_arguments("--speculative-config", json.dumps(config)).speculative == expected


def test_speculative_without_drafter_is_none() -> None:
    assert build_plan(choice("spark")).speculative is None


@pytest.mark.parametrize(
    ("settings", "ranks"),
    [
        ((), 1),
        (("tensor-parallel-size=2",), 2),
        (("tensor-parallel-size=2", "pipeline-parallel-size=2", "data-parallel-size=2"), 8),
    ],
)
def test_ranks_multiply_the_parallel_sizes(settings: tuple[str, ...], ranks: int) -> None:
    assert build_plan(choice("b200", *settings)).ranks == ranks


def test_with_draft_tokens_changes_only_the_number() -> None:
    plan = build_plan(choice("spark", "drafter=deckard-e4b"))
    assert plan.with_draft_tokens(5) == plan
    changed = plan.with_draft_tokens(2)
    assert changed == build_plan(choice("spark", "drafter=deckard-e4b", "drafter_tokens=2"))


def test_with_no_draft_tokens_drops_the_option() -> None:
    plan = build_plan(choice("spark", "drafter=deckard-e4b"))
    without = plan.with_draft_tokens(0)
    assert without.speculative is None
    at = plan.arguments.index("--speculative-config")
    assert without.arguments == (*plan.arguments[:at], *plan.arguments[at + 2 :])
    with pytest.raises(ValueError, match="not in tuple"):
        without.with_draft_tokens(1)


def test_typed_answers_are_not_stored() -> None:
    plan = build_plan(choice("spark", "drafter=deckard-e4b"))
    before = plan.model_dump_json()
    assert (plan.ranks, plan.speculative is None) == (1, False)
    assert plan.model_dump_json() == before
    assert not {"option", "speculative", "ranks"} & set(json.loads(before))


def test_plan_is_frozen() -> None:
    with pytest.raises(ValidationError):
        PLAN.port = 1  # type: ignore[misc]


def test_plan_without_filter_has_the_hash_of_earlier_versions() -> None:
    plan = built_in("spark").model_copy(update={"request_filter": None})
    assert "request_filter" not in plan.model_dump(mode="json")
    assert plan_hash(json.loads(plan.model_dump_json())) == plan.hash
    assert LaunchPlan.model_validate_json(plan.model_dump_json()) == plan
