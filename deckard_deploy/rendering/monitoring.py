"""Render Prometheus and Grafana for a LaunchPlan: a separate compose project, and the files that it mounts.

PyYAML and json write the files; the first line of each YAML file names its plan.
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
from deckard_deploy.planning import gateway as gateway_port
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.rendering.alerts import GATEWAY_JOB, JOB, alert_rules
from deckard_deploy.rendering.compose import GATEWAY, SERVICE, compose_model
from deckard_deploy.rendering.dashboard import SOURCE, dashboard
from deckard_deploy.rendering.gateway import FIGURES

# Tags that public compose files pin: apache/polaris pull request 2944 (getting-started/telemetry), and
# AndreiGavriliu/homelab pull request 4847.
PROMETHEUS_IMAGE = "prom/prometheus:v3.7.3"
GRAFANA_IMAGE = "grafana/grafana:12.3.0"
SCRAPE_INTERVAL = "5s"
EVALUATION_INTERVAL = "15s"
RETENTION_TIME = "15d"
RETENTION_SIZE = "2GB"  # a Spark's disk is for models
COMPOSE_FILE = "compose.yaml"
PASSWORD_FILE = "secrets/grafana_admin_password"  # noqa: S105  a file name
KEY_FILE = "prometheus/key"
CERTIFICATE_FILE = "prometheus/certificate.pem"
DATA_FOLDERS = ("data/prometheus", "data/grafana")
# conf/defaults.ini of Grafana; the image takes GF_<SECTION>_<KEY>, and __FILE for a secret
# (packaging/docker/run.sh).
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
class MonitoringSettings:
    """The folder of these files on the host, the uid:gid of the files and both services, the ports and the images."""

    folder: str
    user: str
    prometheus_image: str = PROMETHEUS_IMAGE
    grafana_image: str = GRAFANA_IMAGE
    prometheus_port: int = 9090
    grafana_port: int = 3000


def render_monitoring(plan: LaunchPlan, place: MonitoringSettings) -> dict[str, str]:
    """Return every file by its path below the folder.

    Raises BadInputError for an engine whose metrics are not listed.
    """
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
        COMPOSE_FILE: _yaml(plan, _double_dollars(monitoring_model(plan, place))),
        "prometheus/prometheus.yml": _yaml(plan, _prometheus(plan)),
        "prometheus/rules.yml": _yaml(plan, alert_rules(plan, names)),
        "provisioning/datasources/deckard.yaml": _yaml(plan, {"apiVersion": 1, "datasources": [source]}),
        "provisioning/dashboards/deckard.yaml": _yaml(plan, {"apiVersion": 1, "providers": [provider]}),
        "dashboards/deckard.json": json.dumps(dashboard(plan, names), indent=1) + "\n",
    }


def project_name(deployment: str) -> str:
    """Return the name of the compose project, in which compose allows no dot."""
    return f"deckard-{deployment.replace('.', '_')}-monitoring"


def monitoring_model(plan: LaunchPlan, place: MonitoringSettings) -> dict[str, Any]:
    """Return the compose file as data, before `$` is doubled."""
    network = engine_network(plan)
    model: dict[str, Any] = {
        "name": project_name(plan.deployment),
        "services": {
            "prometheus": _prometheus_service(network, place),
            "grafana": _grafana_service(network, place),
        },
        "secrets": {"grafana_admin_password": {"file": f"{place.folder}/{PASSWORD_FILE}"}},
    }
    if network:
        model["networks"] = {"monitoring": {}, "engine": {"external": True, "name": network}}
    return model


def _prometheus_service(network: str | None, place: MonitoringSettings) -> dict[str, Any]:
    listen = "0.0.0.0:9090" if network else f"127.0.0.1:{place.prometheus_port}"
    return {
        **_service(place.prometheus_image, place),
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={RETENTION_TIME}",
            f"--storage.tsdb.retention.size={RETENTION_SIZE}",
            f"--web.listen-address={listen}",
        ],
        "volumes": [
            _bind(place, "prometheus", "/etc/prometheus"),
            _bind(place, DATA_FOLDERS[0], "/prometheus", read_only=False),
        ],
        **_network_settings(network, place.prometheus_port, 9090, ["engine", "monitoring"]),
    }


def _grafana_service(network: str | None, place: MonitoringSettings) -> dict[str, Any]:
    settings = dict(GRAFANA_SETTINGS)
    if network is None:
        settings["GF_SERVER_HTTP_ADDR"] = "127.0.0.1"
        settings["GF_SERVER_HTTP_PORT"] = str(place.grafana_port)
    return {
        **_service(place.grafana_image, place),
        "environment": settings,
        "secrets": ["grafana_admin_password"],
        "volumes": [
            _bind(place, "provisioning", "/etc/grafana/provisioning"),
            _bind(place, "dashboards", "/etc/dashboards"),
            _bind(place, DATA_FOLDERS[1], "/var/lib/grafana", read_only=False),
        ],
        **_network_settings(network, place.grafana_port, 3000, ["monitoring"]),
    }


def engine_network(plan: LaunchPlan) -> str | None:
    """Return the network of the engine's container; None where the engine listens on the host itself."""
    if plan.runtime != "docker" or plan.container.network == "host":
        return None
    model = compose_model(plan)
    networks = model["services"][SERVICE].get("networks", ["default"])
    return f"{model['name']}_{networks[0]}"


def _prometheus(plan: LaunchPlan) -> dict[str, Any]:
    if engine_network(plan):
        target = f"{SERVICE}:{plan.container_port}"
    else:
        target = urlsplit(plan.base_url).netloc
    job = {
        "job_name": JOB,
        **_gateway_access(plan),
        "static_configs": [{"targets": [target], "labels": {"deployment": plan.deployment}}],
    }
    return {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": EVALUATION_INTERVAL},
        "rule_files": ["rules.yml"],
        "scrape_configs": [job, *_gateway_jobs(plan)],
    }


def _gateway_jobs(plan: LaunchPlan) -> list[dict[str, Any]]:
    """Return the job that scrapes nginx's own figures, where there is an nginx."""
    if plan.gateway is None:
        return []
    in_docker = engine_network(plan) is not None
    target = f"{GATEWAY}:{gateway_port.PORT}" if in_docker else urlsplit(plan.base_url).netloc
    access = _gateway_credentials(plan.gateway)
    if plan.gateway.tls and in_docker:
        access["tls_config"]["server_name"] = "localhost"  # one of the names in this tool's own certificate
    labels = {"deployment": plan.deployment}
    return [
        {
            "job_name": GATEWAY_JOB,
            "metrics_path": FIGURES,
            **access,
            "static_configs": [{"targets": [target], "labels": labels}],
        }
    ]


def scrapes_through_gateway(plan: LaunchPlan) -> bool:
    """Return True if only nginx serves /metrics, with a key: a process behind nginx listens nowhere else."""
    return engine_network(plan) is None and plan.gateway is not None


def _gateway_access(plan: LaunchPlan) -> dict[str, Any]:
    """Return Prometheus' settings for the gateway; Prometheus resolves file names next to prometheus.yml."""
    if plan.gateway is None or not scrapes_through_gateway(plan):
        return {}
    return _gateway_credentials(plan.gateway)


def _gateway_credentials(gateway: Gateway) -> dict[str, Any]:
    access: dict[str, Any] = {"authorization": {"credentials_file": PurePosixPath(KEY_FILE).name}}
    if gateway.tls:
        access["scheme"] = "https"
        access["tls_config"] = {"ca_file": PurePosixPath(CERTIFICATE_FILE).name}
    return access


def _prometheus_url(plan: LaunchPlan, place: MonitoringSettings) -> str:
    if engine_network(plan):
        return "http://prometheus:9090"
    return f"http://127.0.0.1:{place.prometheus_port}"


def _service(image: str, place: MonitoringSettings) -> dict[str, Any]:
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


def _network_settings(
    network: str | None, port: int, container_port: int, networks: list[str]
) -> dict[str, Any]:
    """Make only this host reach the service: by a loopback port, or on the host's own network."""
    if network is None:
        return {"network_mode": "host"}
    published = {"target": container_port, "published": str(port), "host_ip": "127.0.0.1", "protocol": "tcp"}
    return {"networks": networks, "ports": [published]}


def _bind(place: MonitoringSettings, source: str, target: str, *, read_only: bool = True) -> dict[str, Any]:
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


def _double_dollars(value: Any) -> Any:  # noqa: ANN401  YAML of any shape
    """Double every `$`, which compose would read as the start of a variable."""
    if isinstance(value, dict):
        return {key: _double_dollars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_double_dollars(item) for item in value]
    if isinstance(value, str):
        return value.replace("$", "$$")
    return value
