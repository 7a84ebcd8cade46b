"""Prometheus and Grafana: existing metrics, this host only, and no secrets in rendered files."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deckard_deploy.catalog.metric_names import MetricNames, metric_names, names_in_query
from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring.metrics import parse
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.planning.replicas import as_front, replica_choice, shares
from deckard_deploy.rendering import alerts, dashboard
from deckard_deploy.rendering.monitoring import (
    COMPOSE_FILE,
    PASSWORD_FILE,
    MonitoringSettings,
    engine_network,
    monitoring_model,
    render_monitoring,
)
from tests.support.sample_choices import choice
from tests.support.sample_plans import PROFILES, built_in

PAGES = Path(__file__).parents[1] / "measuring" / "pages"
NAMES = metric_names("vllm-0.19.1")
PLACE = MonitoringSettings(folder="/srv/mon$itoring", user="1000:1000")


def drafting() -> LaunchPlan:
    return build_plan(choice("spark", "drafter=deckard-e4b"))


def queries(plan: LaunchPlan, names: MetricNames = NAMES) -> list[str]:
    """Return every query of the dashboard and the rules."""
    rules = alerts.alert_group(plan, names)["rules"]
    panels = dashboard.dashboard(plan, names)["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules), *asked]


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.txt")), ids=lambda path: path.stem)
def test_every_metric_is_on_the_real_page(path: Path) -> None:
    page = parse(path.read_text(encoding="utf-8"))
    # A counter by status has no sample before the first answer with that status, only a TYPE line.
    exported = {*page.samples, *(f"{name}_total" for name, kind in page.types.items() if kind == "counter")}
    asked = {name for query in queries(drafting(), metric_names(path.stem)) for name in names_in_query(query)}
    assert len(asked) > 15
    assert {name for name in asked if name not in exported} == set()


def test_drafter_plan_has_all_alerts_and_panels() -> None:
    assert len(alerts.alert_group(drafting(), NAMES)["rules"]) == len(alerts.ALERTS)
    assert len(dashboard.dashboard(drafting(), NAMES)["panels"]) == len(dashboard.PANELS) + 1


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.txt")), ids=lambda path: path.stem)
def test_no_drafter_metrics_without_drafter(path: Path) -> None:
    asked = queries(built_in("spark", "vllm-0.19.1"), metric_names(path.stem))
    assert asked
    assert [query for query in asked if "spec_decode" in query or "{break_even}" in query] == []


def test_missing_metrics_are_not_queried() -> None:
    fewer = {name: metric for name, metric in NAMES.metrics.items() if name != "vllm:num_preemptions_total"}
    asked = queries(drafting(), MetricNames(vllm_version="0", metrics=fewer))
    assert "vllm:num_preemptions_total" not in "".join(asked)
    assert len(asked) < len(queries(drafting()))


def parsed(plan: LaunchPlan) -> dict[str, Any]:
    texts = render_monitoring([plan], PLACE)
    return {
        name: json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
        for name, text in texts.items()
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_file_parses_to_model(profile: str) -> None:
    plan = built_in(profile)
    text = json.dumps(parsed(plan)[COMPOSE_FILE])
    assert json.loads(text.replace("$$", "$")) == monitoring_model([plan], PLACE)
    assert text.count("$") == 2 * text.count("$$")


@pytest.mark.parametrize("plan", [built_in("spark"), build_plan(choice("cpu"))], ids=["container", "process"])
def test_services_are_local_and_need_password(plan: LaunchPlan) -> None:
    model = monitoring_model([plan], PLACE)
    for service in model["services"].values():
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}
        assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
        assert not service["image"].endswith(":latest")
        assert service["image"].count(":") == 1
    grafana = model["services"]["grafana"]
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in grafana["environment"]
    assert model["secrets"] == {"grafana_admin_password": {"file": f"{PLACE.folder}/{PASSWORD_FILE}"}}
    mounts = [mount for service in model["services"].values() for mount in service["volumes"]]
    writable = [mount["target"] for mount in mounts if not mount["read_only"]]
    assert writable == ["/prometheus", "/var/lib/grafana"]


def test_container_is_scraped_on_its_network() -> None:
    plan = built_in("spark")
    assert engine_network(plan) == "deckard-spark_private"
    found = parsed(plan)
    assert found["prometheus/prometheus.yml"]["scrape_configs"][0]["static_configs"][0]["targets"] == [
        "vllm:8000"
    ]
    assert found[COMPOSE_FILE]["networks"]["engine"] == {"external": True, "name": "deckard-spark_private"}
    assert "engine" not in found[COMPOSE_FILE]["services"]["grafana"]["networks"]


def test_process_is_scraped_on_the_host() -> None:
    plan = build_plan(choice("cpu"))
    found = parsed(plan)
    assert found["prometheus/prometheus.yml"]["scrape_configs"][0]["static_configs"][0]["targets"] == [
        "127.0.0.1:8000"
    ]
    services = found[COMPOSE_FILE]["services"]
    assert {service["network_mode"] for service in services.values()} == {"host"}
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def process_behind_nginx(**more: Any) -> LaunchPlan:
    """Return the plan of a process behind nginx."""
    facts = {
        "image": None,
        "program": "/usr/sbin/nginx",
        "user": None,
        "folder": "/g",
        "exposed": False,
        "tls": False,
    }
    none = {"certificate": None, "certificate_key": None}
    return build_plan(choice("cpu")).model_copy(update={"gateway": Gateway(**{**facts, **none, **more})})


def scraped(plan: LaunchPlan) -> dict[str, Any]:
    return dict(parsed(plan)["prometheus/prometheus.yml"]["scrape_configs"][0])


def test_process_gateway_is_scraped_with_key() -> None:
    assert scraped(process_behind_nginx())["authorization"] == {"credentials_file": "key"}
    assert "scheme" not in scraped(process_behind_nginx())
    found = scraped(process_behind_nginx(tls=True))
    assert (found["scheme"], found["tls_config"]) == ("https", {"ca_file": "cpu.pem"})


def test_container_is_scraped_without_key() -> None:
    assert built_in("spark").gateway is not None
    assert "authorization" not in scraped(built_in("spark"))


def two() -> list[LaunchPlan]:
    """Return the plans of two deployments, one in docker and one as a process behind nginx with TLS."""
    return [built_in("spark"), process_behind_nginx(tls=True)]


def test_shared_stack_asks_each_deployment_by_its_url() -> None:
    texts = render_monitoring(two(), replace(PLACE, shared=True))
    model = yaml.safe_load(texts[COMPOSE_FILE])
    assert (model["name"], "networks" in model) == ("deckard_monitoring", False)
    assert {service["network_mode"] for service in model["services"].values()} == {"host"}
    jobs = yaml.safe_load(texts["prometheus/prometheus.yml"])["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["vllm-spark", "gateway-spark", "vllm-cpu", "gateway-cpu"]
    assert {job["static_configs"][0]["targets"][0] for job in jobs} == {"127.0.0.1:8000"}
    assert {job["authorization"]["credentials_file"] for job in jobs} == {"key"}
    assert [job.get("tls_config", {}).get("ca_file") for job in jobs] == [None, None, "cpu.pem", "cpu.pem"]


def test_rules_and_panels_are_of_one_deployment() -> None:
    texts = render_monitoring(two(), replace(PLACE, shared=True))
    groups = yaml.safe_load(texts["prometheus/rules.yml"])["groups"]
    asked = {group["name"]: [rule["expr"] for rule in group["rules"]] for group in groups}
    for name in ("spark", "cpu"):
        panels = json.loads(texts[f"dashboards/of-{name}.json"])["panels"]
        asked[name] += [target["expr"] for panel in panels for target in panel["targets"]]
        asking = [query for query in asked[name] if not re.fullmatch(r"[0-9.]+", query)]  # a line of a plot
        assert len(asked[name]) - len(asking) == (name == "spark")  # of its drafter: break-even
        for query in asking:
            selectors = names_in_query(query) + re.findall(r"\b(?:up|ALERTS|deckard_[a-z_]+)\b", query)
            is_constant = (
                re.fullmatch(r"[\d.]+", query) is not None
            )  # the acceptance from which a drafter pays
            assert query.count(f'{{deployment="{name}"') == len(selectors), query
            assert is_constant or selectors, query
    overview = json.loads(texts["dashboards/deckard.json"])
    assert (overview["title"], len(overview["panels"])) == ("All deployments", 6)


def test_replica_on_a_socket_is_asked_through_its_gateway() -> None:
    resolved = choice("b200", "replicas=2")
    share = shares(resolved)[0]
    plan = build_plan(replica_choice(resolved, share), DEFAULT_PATHS._replace(sockets=True))
    assert engine_network(
        build_plan(replica_choice(resolved, share))
    )  # the control: with a port it is asked there
    assert engine_network(plan) is None
    jobs = yaml.safe_load(render_monitoring([plan], PLACE)["prometheus/prometheus.yml"])["scrape_configs"]
    assert {job["static_configs"][0]["targets"][0] for job in jobs} == {f"127.0.0.1:{plan.port}"}
    assert all(job["authorization"] for job in jobs)


def test_front_alone_is_rendered() -> None:
    front = as_front(build_plan(choice("b200", "replicas=2")))
    assert engine_network(front) is None
    files = render_monitoring([front], replace(PLACE, shared=True, project="deckard-b200-monitoring"))
    (job,) = yaml.safe_load(files["prometheus/prometheus.yml"])["scrape_configs"]
    assert job["static_configs"][0]["labels"] == {"job": alerts.GATEWAY_JOB, "deployment": "b200"}


def test_engine_without_metric_list_raises() -> None:
    with pytest.raises(BadInputError, match=r"known: vllm-0\.19\.1, vllm-0\.32\.0"):
        metric_names("vllm-0.1.0")


def test_replicas_have_one_prometheus_with_a_label_each() -> None:
    resolved = choice("b200", "replicas=2")
    plans = [build_plan(replica_choice(resolved, share)) for share in shares(resolved)]
    front = as_front(build_plan(resolved))
    place = replace(PLACE, shared=True, project="deckard-b200-monitoring")
    files = render_monitoring([front, *plans], place)
    assert yaml.safe_load(files[COMPOSE_FILE])["name"] == "deckard-b200-monitoring"
    jobs = yaml.safe_load(files["prometheus/prometheus.yml"])["scrape_configs"]
    labels = [job["static_configs"][0]["labels"] for job in jobs]
    assert [each for each in labels if each["job"] == alerts.JOB] == [
        {"job": "vllm", "deployment": f"b200-{number}", "front": "b200", "replica": str(number)}
        for number in (1, 2)
    ]
    assert labels[0] == {"job": alerts.GATEWAY_JOB, "deployment": "b200"}
    assert len({job["job_name"] for job in jobs}) == len(jobs)
    groups = yaml.safe_load(files["prometheus/rules.yml"])["groups"]
    rules = {group["name"]: {rule["alert"] for rule in group["rules"]} for group in groups}
    assert rules["b200"] == {"GatewayDown", "GatewayOpen"}
    assert "ServerDown" in rules["b200-1"] & rules["b200-2"]
    assert {name for name in files if name.startswith("dashboards/")} == {
        "dashboards/deckard.json",
        "dashboards/of-b200-1.json",
        "dashboards/of-b200-2.json",
    }
