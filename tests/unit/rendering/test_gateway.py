"""nginx.conf: what differs between plans, and what does not."""

import re

import pytest

from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.rendering.gateway import ROUTES, render_gateway
from tests.support.sample_plans import PROFILES, built_in


def changed(**changes: object) -> LaunchPlan:
    plan = built_in("spark")
    assert plan.gateway is not None
    return plan.model_copy(update={"gateway": plan.gateway.model_copy(update=changes)})


def test_a_process_listens_where_the_plan_says_and_asks_a_socket() -> None:
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


def test_a_container_asks_the_engine_by_name() -> None:
    text = render_gateway(built_in("spark"))
    assert 'set $vllm "vllm:8000";' in text
    assert "resolver 127.0.0.11" in text
    assert "listen 8080;" in text


def test_only_on_loopback_may_there_be_no_key() -> None:
    opens = '"~^local [01]? 1$" pass;'
    assert opens in render_gateway(changed(exposed=False))
    assert opens not in render_gateway(changed(exposed=True))


def test_only_this_machine_may_come_unless_it_is_exposed() -> None:
    refuses = "if ($beside = 0) {"
    assert refuses in render_gateway(changed(exposed=False))
    assert refuses not in render_gateway(changed(exposed=True))
    assert refuses not in render_gateway(changed(exposed=False), in_pod=True)


def test_tls_is_there_when_the_plan_has_it() -> None:
    assert "listen 8080 ssl;" in render_gateway(changed(tls=True))
    assert "ssl" not in render_gateway(changed(tls=False))


def test_every_route_is_a_whole_request_line() -> None:
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
def test_all_profiles_have_the_same(profile: str) -> None:
    assert render_gateway(built_in(profile)) == render_gateway(built_in("spark"))


def test_a_plan_without_one_has_no_file() -> None:
    with pytest.raises(ValueError, match="no gateway"):
        render_gateway(built_in("spark").model_copy(update={"gateway": None}))
