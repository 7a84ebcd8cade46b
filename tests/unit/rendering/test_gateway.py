"""The parts of nginx.conf that differ between plans, and those that do not."""

import json
import re

import pytest

from deckard_deploy.catalog.specs import Task
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.rendering.gateway import READ, Route, refusals, render_gateway, routes_of
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
    text = render_gateway(built_in("spark"))
    patterns = re.findall(r'"~(\^(?:GET|HEAD|POST) .*)" (\S+);', text.partition("$allowed")[0])
    served = (*routes_of("generate"), Route(READ, "/v1/models/deckard-31b", "model"))
    assert len(patterns) == sum(len(route.methods) for route in served)
    lines = [(f"{method} {route.path}", route.engine_path) for route in served for method in route.methods]
    for (line, engine_path), (pattern, target) in zip(lines, patterns, strict=True):
        assert target == engine_path
        for behind in ("", "/", "?", "?beta=true", "/?a=b/c"):
            assert re.search(pattern, f"{line}{behind} HTTP/1.1"), behind
        method, _, path = line.partition(" ")
        for wrong in (
            f"{method} /{path} HTTP/1.1", f"{line} HTTP/1.0", f"{line}// HTTP/1.1", f"{line}? x HTTP/1.1", path,
            f"{line.replace('v1', 'v1x').replace('metrics', 'metricsx')} HTTP/1.1", f"{line}x HTTP/1.1",
        ):  # fmt: skip
            assert not re.search(pattern, wrong), wrong


@pytest.mark.parametrize(("convert", "task"), [("embed", "embed"), ("classify", "score")])
def test_pooling_engine_has_its_own_routes_alone(convert: str, task: Task) -> None:
    plan = built_in("spark")
    plan = plan.model_copy(
        update={"arguments": (*plan.arguments, "--runner", "pooling", "--convert", convert)}
    )
    text = render_gateway(plan)
    posted = re.findall(r'"~\^POST (\S+)/\?', text.partition("$allowed")[0])
    assert plan.task == task
    assert [path.replace("\\", "") for path in posted] == {
        "embed": ["/v1/embeddings", "/v1/rerank", "/v1/score"],
        "score": ["/v1/rerank", "/v1/score"],
    }[task]
    assert "/v1/chat" not in text
    assert ("/v1/embeddings" in text) is (task == "embed")


def without_model(text: str) -> list[str]:
    marks = ('"id": ', "/models/", "no such model")
    return [line for line in text.splitlines() if not any(mark in line for mark in marks)]


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_differ_in_the_model_only(profile: str) -> None:
    assert without_model(render_gateway(built_in(profile))) == without_model(
        render_gateway(built_in("spark"))
    )


def test_model_is_listed_without_path_and_launch() -> None:
    text = render_gateway(built_in("spark").launched("deckard-launch-1"))
    assert "deckard-launch-1" not in text
    (listed,) = re.findall(r"""'({"object": "list".*})';""", text)
    (model,) = json.loads(listed)["data"]
    assert set(model) == {"id", "object", "created", "owned_by", "max_model_len"}


def test_refusals_are_json_in_both_shapes() -> None:
    for refusal in refusals("tiny-gemma4"):
        assert json.loads(refusal.openai)["error"]["message"] == refusal.message
        assert json.loads(refusal.anthropic)["error"]["type"] == refusal.anthropic_type
        for body in (refusal.openai, refusal.anthropic):
            assert not set(body) & set("'$\\")  # what nginx would read as its own


def test_plan_without_gateway_raises() -> None:
    with pytest.raises(ValueError, match="no gateway"):
        render_gateway(built_in("spark").model_copy(update={"gateway": None}))
