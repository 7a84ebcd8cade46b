"""The plan's own answers: hash, base URL, one launch of it."""

import pytest
from pydantic import ValidationError

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan

PLAN = build_plan(resolve(Deployment(), profile=library.profile("spark")))


def test_the_hash_is_twelve_hex_digits_and_survives_a_file() -> None:
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


def test_a_launch_has_one_more_served_name_after_the_real_one() -> None:
    launched = PLAN.launched("deckard-launch-1")
    at = launched.arguments.index("--served-model-name")
    assert launched.arguments[at + 1 : at + 3] == ("deckard-31b", "deckard-launch-1")
    assert tuple(token for token in launched.arguments if token != "deckard-launch-1") == PLAN.arguments


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        PLAN.port = 1  # type: ignore[misc]
