"""Plans with and without a gateway, and the gateway's settings."""

from pathlib import PurePosixPath

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.overrides import read_deployment, with_settings
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import DEFAULT_PATHS, HostPaths, build_plan

WITH_NGINX = DEFAULT_PATHS._replace(nginx=PurePosixPath("/usr/sbin/nginx"), owner="1000:1000")


def planned(profile: str, *settings: str, paths: HostPaths = DEFAULT_PATHS) -> LaunchPlan:
    deployment = with_settings(read_deployment(None), settings)
    return build_plan(resolve(deployment, profile=library.profile(profile)), paths)


def test_docker_gateway_is_on_loopback_without_tls() -> None:
    plan = planned("spark")
    assert plan.gateway is not None
    assert (plan.gateway.exposed, plan.gateway.tls, plan.address) == (False, False, "127.0.0.1")
    assert plan.gateway.folder == "/srv/deckard/deployments/spark/gateway"
    assert plan.base_url == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("owner", "user"), [(None, "101:101"), ("0:0", "101:101"), ("1000:1000", "1000:1000")]
)
def test_gateway_runs_as_owner_never_as_root(owner: str | None, user: str) -> None:
    gateway = planned("spark", paths=DEFAULT_PATHS._replace(owner=owner)).gateway
    assert gateway is not None
    assert gateway.user == user


def test_process_gateway_needs_nginx() -> None:
    with_nginx, without = planned("cpu", paths=WITH_NGINX), planned("cpu")
    assert with_nginx.gateway is not None
    assert with_nginx.gateway.program == "/usr/sbin/nginx"
    assert with_nginx.arguments[1:3] == ("--uds", "vllm.sock")
    assert without.gateway is None
    assert without.arguments[1:5] == ("--host", "127.0.0.1", "--port", "8000")


def test_gateway_is_a_setting_of_the_process_runtime() -> None:
    off = planned("cpu", "gateway=off", paths=WITH_NGINX)
    assert off == planned("cpu")
    assert planned("cpu", "gateway=nginx", paths=WITH_NGINX) == planned("cpu", paths=WITH_NGINX)
    assert planned("spark", "gateway=nginx") == planned("spark")


def test_exposed_gateway_has_tls_by_default() -> None:
    plan = planned("spark", "publish.expose=192.168.1.20")
    assert (plan.address, plan.base_url) == ("192.168.1.20", "https://192.168.1.20:8000/v1")
    assert plan.gateway is not None
    assert plan.gateway.exposed
    assert (
        planned("spark", "publish.expose=0.0.0.0", "publish.tls=false").base_url == "http://127.0.0.1:8000/v1"
    )


@pytest.mark.parametrize(
    ("profile", "settings", "message"),
    [
        ("cpu", ["publish.expose=0.0.0.0"], "nginx is not installed"),
        ("cpu", ["publish.expose=0.0.0.0", "gateway=off"], "to ask for keys: gateway is off"),
        ("cpu", ["gateway=nginx"], "gateway is nginx: nginx is not installed"),
        ("spark", ["gateway=nginx", "container.network=host"], "gateway is nginx: the container is on the"),
        ("spark", ["gateway=off"], "runs in docker, where nginx is a second container"),
        ("spark", ["publish.expose=0.0.0.0", "container.network=host"], "host's network"),
        (
            "cpu",
            ["publish.tls=true"],
            "publish.tls is set, and there is no gateway to speak TLS: nginx is not",
        ),
        (
            "cpu",
            ["publish.certificate=/a.pem", "publish.certificate_key=/a.key"],
            "publish.certificate is set",
        ),
        (
            "spark",
            ["publish.tls=true", "container.network=host"],
            "to speak TLS: the container is on the host",
        ),
        ("spark", ["publish.address=0.0.0.0"], "not a loopback address"),
        ("spark", ["publish.address=192.168.1.20"], "not a loopback address"),
        ("spark", ["publish.certificate=/a.pem"], "belong together"),
        ("spark", ["publish.certificate_key=/a.key"], "belong together"),
        (
            "spark",
            ["publish.certificate=/a.pem", "publish.certificate_key=/a.key", "publish.tls=false"],
            "keep one",
        ),
    ],
)
def test_unsafe_publish_settings_raise(profile: str, settings: list[str], message: str) -> None:
    if "container.network=host" in settings:
        settings = [*settings, "allow_unsafe=[container.network]"]
    with pytest.raises(BadInputError, match=message):
        planned(profile, *settings)


def test_compat_plan_has_no_gateway() -> None:
    kept = library.compatibility("seed")
    resolved = resolve(
        with_settings(read_deployment(None), []), profile=library.profile(kept.profile), compatibility=kept
    )
    assert build_plan(resolved).gateway is None
