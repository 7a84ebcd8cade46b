"""LaunchPlan -> Prometheus and Grafana beside it: a compose project of its own, and everything that it mounts.

The files are data written by PyYAML and json, each with a line on top that says where it comes from.
"""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from deckard_deploy import __version__
from deckard_deploy.catalog import library
from deckard_deploy.catalog.metric_names import metric_names
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.alerts import JOB, alert_rules
from deckard_deploy.rendering.compose import SERVICE, compose_model
from deckard_deploy.rendering.dashboard import SOURCE, dashboard

# Tags that public compose files pin: apache/polaris pull request 2944 (getting-started/telemetry), and
# AndreiGavriliu/homelab pull request 4847.
PROMETHEUS_IMAGE = "prom/prometheus:v3.7.3"
GRAFANA_IMAGE = "grafana/grafana:12.3.0"
SCRAPE, EVALUATE = "5s", "15s"
KEPT, KEPT_BYTES = "15d", "2GB"  # a Spark's disk is for models
COMPOSE, PASSWORD = "compose.yaml", "secrets/grafana_admin_password"
KEY, CERTIFICATE = "prometheus/key", "prometheus/certificate.pem"
DATA = ("data/prometheus", "data/grafana")
# conf/defaults.ini of Grafana; the image takes GF_<SECTION>_<KEY>, and __FILE for a secret (packaging/docker/run.sh).
GRAFANA_SETTINGS = {
    "GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana_admin_password",
    "GF_AUTH_ANONYMOUS_ENABLED": "false",
    "GF_USERS_ALLOW_SIGN_UP": "false",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_NEWS_NEWS_FEED_ENABLED": "false",
    "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/etc/dashboards/deckard.json",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it runs. folder: of these files on the host. user: uid:gid that owns them, and that both run as."""

    folder: str
    user: str
    prometheus_port: int = 9090
    grafana_port: int = 3000


def render_monitoring(plan: LaunchPlan, place: Place) -> dict[str, str]:
    """Every file by its path below the folder. Raises BadInputError for an engine whose metrics nobody has listed."""
    names = metric_names(library.engine(plan.engine).option_schema)
    source = {
        **SOURCE,
        "name": "Prometheus",
        "access": "proxy",
        "url": _prometheus_url(plan, place),
        "isDefault": True,
    }
    provider = {
        "name": "deckard",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": "/etc/dashboards"},
    }
    return {
        COMPOSE: _yaml(plan, _doubled(monitoring_model(plan, place))),
        "prometheus/prometheus.yml": _yaml(plan, _prometheus(plan)),
        "prometheus/rules.yml": _yaml(plan, alert_rules(plan, names)),
        "provisioning/datasources/deckard.yaml": _yaml(plan, {"apiVersion": 1, "datasources": [source]}),
        "provisioning/dashboards/deckard.yaml": _yaml(plan, {"apiVersion": 1, "providers": [provider]}),
        "dashboards/deckard.json": json.dumps(dashboard(plan, names), indent=1) + "\n",
    }


def project(deployment: str) -> str:
    """The compose project, beside the deployment's own; compose allows no dot in its name."""
    return f"deckard-{deployment.replace('.', '_')}-monitoring"


def monitoring_model(plan: LaunchPlan, place: Place) -> dict[str, Any]:
    """The compose file as data, `$` not yet doubled."""
    network = engine_network(plan)
    listen = "0.0.0.0:9090" if network else f"127.0.0.1:{place.prometheus_port}"
    arguments = [
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path=/prometheus",
        f"--storage.tsdb.retention.time={KEPT}",
        f"--storage.tsdb.retention.size={KEPT_BYTES}",
        f"--web.listen-address={listen}",
    ]
    prometheus = {
        **_service(PROMETHEUS_IMAGE, place),
        "command": arguments,
        "volumes": [
            _bind(place, "prometheus", "/etc/prometheus"),
            _bind(place, DATA[0], "/prometheus", read_only=False),
        ],
        **_reached(network, place.prometheus_port, 9090, ["engine", "monitoring"]),
    }
    address = (
        {}
        if network
        else {"GF_SERVER_HTTP_ADDR": "127.0.0.1", "GF_SERVER_HTTP_PORT": str(place.grafana_port)}
    )
    grafana = {
        **_service(GRAFANA_IMAGE, place),
        "environment": {**GRAFANA_SETTINGS, **address},
        "secrets": ["grafana_admin_password"],
        "volumes": [
            _bind(place, "provisioning", "/etc/grafana/provisioning"),
            _bind(place, "dashboards", "/etc/dashboards"),
            _bind(place, DATA[1], "/var/lib/grafana", read_only=False),
        ],
        **_reached(network, place.grafana_port, 3000, ["monitoring"]),
    }
    model: dict[str, Any] = {
        "name": project(plan.deployment),
        "services": {"prometheus": prometheus, "grafana": grafana},
        "secrets": {"grafana_admin_password": {"file": f"{place.folder}/{PASSWORD}"}},
    }
    if network:
        model["networks"] = {"monitoring": {}, "engine": {"external": True, "name": network}}
    return model


def engine_network(plan: LaunchPlan) -> str | None:
    """The network on which the engine's container is reached by its name; None where it listens on the host itself."""
    if plan.runtime != "docker" or plan.container.network == "host":
        return None
    model = compose_model(plan)
    return f"{model['name']}_{next(iter(model['services'][SERVICE].get('networks', ['default'])))}"


def _prometheus(plan: LaunchPlan) -> dict[str, Any]:
    target = f"{SERVICE}:{plan.container_port}" if engine_network(plan) else urlsplit(plan.base_url).netloc
    return {
        "global": {"scrape_interval": SCRAPE, "evaluation_interval": EVALUATE},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": JOB,
                **_through_gateway(plan),
                "static_configs": [{"targets": [target], "labels": {"deployment": plan.deployment}}],
            }
        ],
    }


def asks_the_gateway(plan: LaunchPlan) -> bool:
    """Whether /metrics is reached through nginx, with a key: a process behind it listens nowhere else."""
    return engine_network(plan) is None and plan.gateway is not None


def _through_gateway(plan: LaunchPlan) -> dict[str, Any]:
    """How it is asked; files are looked for beside prometheus.yml."""
    if plan.gateway is None or not asks_the_gateway(plan):
        return {}
    key = {"authorization": {"credentials_file": PurePosixPath(KEY).name}}
    tls = {"scheme": "https", "tls_config": {"ca_file": PurePosixPath(CERTIFICATE).name}}
    return key | tls if plan.gateway.tls else key


def _prometheus_url(plan: LaunchPlan, place: Place) -> str:
    return "http://prometheus:9090" if engine_network(plan) else f"http://127.0.0.1:{place.prometheus_port}"


def _service(image: str, place: Place) -> dict[str, Any]:
    return {
        "image": image,
        "user": place.user,
        "init": True,
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp:nosuid,nodev,noexec,size=64m"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "logging": {"driver": "json-file", "options": {"max-size": "20m", "max-file": "2"}},
    }


def _reached(network: str | None, port: int, inside: int, networks: list[str]) -> dict[str, Any]:
    """From this host only: on a port of its loopback, or as a process of it that listens there."""
    if network is None:
        return {"network_mode": "host"}
    published = {"target": inside, "published": str(port), "host_ip": "127.0.0.1", "protocol": "tcp"}
    return {"networks": networks, "ports": [published]}


def _bind(place: Place, source: str, target: str, *, read_only: bool = True) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": f"{place.folder}/{source}",
        "target": target,
        "read_only": read_only,
        "bind": {"create_host_path": False},
    }


def _yaml(plan: LaunchPlan, data: dict[str, Any]) -> str:
    head = f"# Rendered by deckard-deploy {__version__} for plan {plan.hash}; `monitor up` writes it anew.\n"
    return head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)


def _doubled(value: Any) -> Any:  # noqa: ANN401  YAML of any shape
    """What compose reads as `value`: it takes `$` for the beginning of a variable."""
    if isinstance(value, dict):
        return {key: _doubled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubled(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value
