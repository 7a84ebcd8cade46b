"""The parts of nginx.conf that differ between plans, and those that do not."""

import re

import pytest

from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.rendering.gateway import ROUTES, render_gateway
from tests.support.sample_plans import PROFILES, built_in


def spark_plan(**changes: object) -> LaunchPlan:
    plan = built_in("spark")
    assert plan.gateway is not None
    return plan.model_copy(update={"gateway": plan.gateway.model_copy(update=changes)})


def test_process_gateway_listens_on_plan_address() -> None:
    gateway = Gateway(
        image=None, program="/usr/sbin/nginx", user=None, folder="/x", exposed=False, tls=False,
        certificate=None, certificate_key=None,
    )  # fmt: skip
    text = render_gateway(
        built_in("cpu").model_copy(update={"gateway": gateway, "address": "::1", "port": 9000})
    )
    assert "listen [::1]:9000;" in text
    assert 'set $vllm "unix:vllm.sock:";' in text
    assert "resolver" not in text


def test_container_gateway_uses_engine_name() -> None:
    text = render_gateway(built_in("spark"))
    assert 'set $vllm "vllm:8000";' in text
    assert "resolver 127.0.0.11" in text
    assert "listen 8080;" in text


def test_only_loopback_needs_no_key() -> None:
    opens = '"~^local [01]? 1$" pass;'
    assert opens in render_gateway(spark_plan(exposed=False))
    assert opens not in render_gateway(spark_plan(exposed=True))


def test_only_local_hosts_pass_unless_exposed() -> None:
    refuses = "if ($beside = 0) {"
    assert refuses in render_gateway(spark_plan(exposed=False))
    assert refuses not in render_gateway(spark_plan(exposed=True))
    assert refuses not in render_gateway(spark_plan(exposed=False), in_pod=True)


def test_tls_follows_the_plan() -> None:
    assert "listen 8080 ssl;" in render_gateway(spark_plan(tls=True))
    assert "ssl" not in render_gateway(spark_plan(tls=False))


def test_routes_match_whole_request_line() -> None:
    routes = re.findall(r'"~(\^(?:GET|POST) .*)" \S+;', render_gateway(built_in("spark")))
    assert len(routes) == len(ROUTES)
    for (method, path, _), pattern in zip(ROUTES, routes, strict=True):
        assert re.search(pattern, f"{method} {path} HTTP/1.1")
        for line in (
            f"{method} {path}? HTTP/1.1",
            f"{method} /{path} HTTP/1.1",
            f"{method} {path} HTTP/1.0",
            path,
        ):
            assert not re.search(pattern, line)


@pytest.mark.parametrize("profile", PROFILES)
def test_all_profiles_render_equal(profile: str) -> None:
    assert render_gateway(built_in(profile)) == render_gateway(built_in("spark"))


def test_plan_without_gateway_raises() -> None:
    with pytest.raises(ValueError, match="no gateway"):
        render_gateway(built_in("spark").model_copy(update={"gateway": None}))
