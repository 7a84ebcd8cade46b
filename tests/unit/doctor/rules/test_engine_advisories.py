"""The mitigation of each published advisory is rendered for every profile."""

import ast
import re
from pathlib import Path, PurePosixPath

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.safety import MAX_RESTARTS
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.doctor.rules.engine import advisories
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.gateway import is_loopback
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rendering.gateway import TASK_ROUTES, render_gateway, routes_of
from deckard_deploy.running.watch import MAX_RESTARTS as WATCH_RESTARTS
from tests.support.sample_plans import built_in

ROOT = Path(__file__).parents[4]
# The profile `cpu` runs without docker, and so without a gateway unless nginx is there.
PROFILES = [name for name in listing.names("profiles") if name != "cpu"]


def plan_of(profile: str) -> LaunchPlan:
    return build_plan(resolve(Deployment(), profile=library.profile(profile)))


def nginx_settings(profile: str) -> list[list[str]]:
    return [line.strip().rstrip(";").split() for line in render_gateway(plan_of(profile)).splitlines()]


@pytest.mark.parametrize("profile", PROFILES)
def test_engine_sees_no_host_of_a_client(profile: str) -> None:
    hosts = [words[2] for words in nginx_settings(profile) if words[:2] == ["proxy_set_header", "Host"]]
    assert hosts
    assert not any("$" in host for host in hosts)


@pytest.mark.parametrize("profile", PROFILES)
def test_gateway_limits_bodies_and_rates(profile: str) -> None:
    assert is_loopback(plan_of(profile).address)
    first = {words[0] for words in nginx_settings(profile) if words}
    assert {"client_max_body_size", "limit_req", "limit_conn"} <= first


def test_no_route_takes_audio() -> None:
    assert [path for task in TASK_ROUTES for _, path, _ in routes_of(task) if "audio" in path] == []


@pytest.mark.parametrize("profile", listing.names("profiles"))
def test_no_model_takes_video(profile: str) -> None:
    arguments = plan_of(profile).arguments
    assert '"video":0' in arguments[arguments.index("--limit-mm-per-prompt") + 1]


@pytest.mark.parametrize("profile", PROFILES)
def test_restarts_are_bounded(profile: str) -> None:
    assert plan_of(profile).container.restart == f"on-failure:{MAX_RESTARTS}"
    assert WATCH_RESTARTS <= MAX_RESTARTS


@pytest.mark.parametrize("profile", listing.names("profiles"))
def test_no_code_of_a_repository_runs(profile: str) -> None:
    assert "--trust-remote-code" not in plan_of(profile).arguments
    with pytest.raises(BadInputError, match="trust-remote-code"):
        resolve(Deployment(serve={"trust-remote-code": True}), profile=library.profile(profile))


@pytest.mark.parametrize("profile", listing.names("profiles"))
def test_no_tensors_of_clients_are_read(profile: str) -> None:
    assert "--enable-prompt-embeds" not in plan_of(profile).arguments
    with pytest.raises(BadInputError, match="enable-prompt-embeds"):
        resolve(Deployment(serve={"enable-prompt-embeds": True}), profile=library.profile(profile))


def test_crashing_drafting_method_is_refused() -> None:
    method = 'speculative-config={"method": "extract_hidden_states", "num_speculative_tokens": 1}'
    with pytest.raises(BadInputError, match="speculative-config"):
        resolve(with_settings(parse("", source="deckard.yaml"), [method]), profile=library.profile("h100"))


@pytest.mark.parametrize("profile", listing.names("profiles"))
def test_filter_of_requests_is_in_every_plan(profile: str) -> None:
    plan = built_in(profile)
    assert plan.request_filter in plan.all_mounts
    name = "KeyedFilter" if plan.gateway else "Filter"
    assert plan.arguments[-2:] == ("--middleware", f"deckard_request_filter.{name}")
    assert str(PurePosixPath(plan.request_filter.target).parent) in plan.environment["PYTHONPATH"].split(":")


def test_routes_are_those_of_the_page() -> None:
    named = set(
        re.findall(
            r"`(/[a-z0-9/_]+)`", (ROOT / "docs/gateway.md").read_text().partition("Everything else")[0]
        )
    )
    for task in TASK_ROUTES:
        served = {route.path for route in routes_of(task)}
        assert served <= named
        assert not served & {"/tokenize", "/version"}
        assert ("/v1/embeddings" in served) is (task == "embed")


@pytest.mark.parametrize("convert", ["embed", "classify"])
def test_vectors_need_release_that_refuses_negative_ids(convert: str) -> None:
    choice = with_settings(
        parse("engine: vllm-0.19.1", source="deckard.yaml"), ["runner=pooling", f"convert={convert}"]
    )
    with pytest.raises(BadInputError, match="CVE-2026-93592"):
        resolve(choice, profile=library.profile("spark"))
    newer = choice.model_copy(update={"engine": "vllm-0.33.0", "drafter": "none"})
    assert resolve(newer, profile=library.profile("spark")).serve["convert"] == convert


@pytest.mark.parametrize("profile", listing.names("profiles"))
def test_no_kv_connector_is_rendered(profile: str) -> None:
    assert "--kv-transfer-config" not in plan_of(profile).arguments


@pytest.mark.parametrize("advisory", advisories(), ids=lambda each: each.id)
def test_every_advisory_names_an_existing_test(advisory) -> None:
    path, _, name = advisory.test.partition("::")
    functions = [
        node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    assert name in functions
