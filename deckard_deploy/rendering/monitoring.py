"""Render Prometheus and Grafana for one deployment or several: a separate compose project, and what it mounts.

PyYAML and json write the files; the first line of each YAML file names its plans.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from deckard_deploy import __version__
from deckard_deploy.catalog import library
from deckard_deploy.catalog.metric_names import MetricNames, metric_names
from deckard_deploy.planning import gateway as gateway_port
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.alerts import GATEWAY_JOB, JOB, alert_group, front_alerts
from deckard_deploy.rendering.compose import GATEWAY, SERVICE, compose_model
from deckard_deploy.rendering.dashboard import SOURCE, dashboard, overview
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
# No deployment has this name: compose would take a stack of it for the other.
SHARED_PROJECT = "deckard_monitoring"
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
    """The folder of these files on the host, the uid:gid of the files and both services, the ports and the images.

    shared: one stack for several deployments, or for replicas. It is on the host's own network and asks each of them by
    its base URL, so that it depends on the network of none. project: its name for compose, of replicas that of their
    front's stack.
    """

    folder: str
    user: str
    prometheus_image: str = PROMETHEUS_IMAGE
    grafana_image: str = GRAFANA_IMAGE
    prometheus_port: int = 9090
    grafana_port: int = 3000
    shared: bool = False
    project: str = SHARED_PROJECT


def render_monitoring(plans: Sequence[LaunchPlan], place: MonitoringSettings) -> dict[str, str]:
    """Return every file by its path below the folder. Only a shared stack has more than one plan.

    Raises BadInputError for an engine whose metrics are not listed.
    """
    network = _network(plans, place)
    source = {
        **SOURCE,
        "name": "Prometheus",
        "access": "proxy",
        "url": "http://prometheus:9090" if network else f"http://127.0.0.1:{place.prometheus_port}",
        "isDefault": True,
    }
    provider = {
        "name": "deckard",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": "/etc/dashboards"},
    }
    rules = {"groups": [alert_group(plan, _metric_names(plan)) for plan in plans if plan.role != "front"]}
    rules["groups"] += [front_alerts(plan) for plan in plans if plan.role == "front"]
    return {
        COMPOSE_FILE: _yaml(plans, _double_dollars(monitoring_model(plans, place))),
        "prometheus/prometheus.yml": _yaml(plans, _prometheus(plans, in_network=network is not None)),
        "prometheus/rules.yml": _yaml(plans, rules),
        "provisioning/datasources/deckard.yaml": _yaml(plans, {"apiVersion": 1, "datasources": [source]}),
        "provisioning/dashboards/deckard.yaml": _yaml(plans, {"apiVersion": 1, "providers": [provider]}),
        **{
            f"dashboards/{name}": json.dumps(data, indent=1) + "\n"
            for name, data in _dashboards(plans, place)
        },
    }


def _dashboards(
    plans: Sequence[LaunchPlan], place: MonitoringSettings
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each dashboard with its file name; Grafana opens with deckard.json."""
    if not place.shared:
        yield "deckard.json", dashboard(plans[0], _metric_names(plans[0]))
        return
    yield "deckard.json", overview()
    for plan in plans:
        if plan.role == "front":
            continue
        # Grafana allows 40 characters in a uid, and a name may have 63.
        uid = f"deckard-{hashlib.sha256(plan.deployment.encode()).hexdigest()[:16]}"
        yield f"of-{plan.deployment}.json", {**dashboard(plan, _metric_names(plan)), "uid": uid}


def _metric_names(plan: LaunchPlan) -> MetricNames:
    return metric_names(library.engine(plan.engine).option_schema)


def certificate_file(plan: LaunchPlan) -> str:
    """Return the path of the gateway's certificate below the folder."""
    return f"prometheus/{plan.deployment}.pem"


def project_name(deployment: str) -> str:
    """Return the name of a deployment's own stack as a compose project, in which compose allows no dot."""
    return f"deckard-{deployment.replace('.', '_')}-monitoring"


def monitoring_model(plans: Sequence[LaunchPlan], place: MonitoringSettings) -> dict[str, Any]:
    """Return the compose file as data, before `$` is doubled."""
    network = _network(plans, place)
    model: dict[str, Any] = {
        "name": place.project if place.shared else project_name(plans[0].deployment),
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


def _network(plans: Sequence[LaunchPlan], place: MonitoringSettings) -> str | None:
    """Return the docker network that Prometheus joins; None where it is on the host's own."""
    return None if place.shared else engine_network(plans[0])


def engine_network(plan: LaunchPlan) -> str | None:
    """Return the network of the engine's container; None where none has the engine's port, and for a front."""
    if (
        plan.runtime != "docker"
        or plan.container.network == "host"
        or plan.role == "front"
        or plan.option("uds")
    ):
        return None
    model = compose_model(plan)
    networks = model["services"][SERVICE].get("networks", ["default"])
    return f"{model['name']}_{networks[0]}"


def _prometheus(plans: Sequence[LaunchPlan], *, in_network: bool) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = []
    for plan in plans:
        jobs += _jobs(plan, in_network=in_network)
    return {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": EVALUATION_INTERVAL},
        "rule_files": ["rules.yml"],
        "scrape_configs": jobs,
    }


def _jobs(plan: LaunchPlan, *, in_network: bool) -> list[dict[str, Any]]:
    """Return the job that scrapes the engine, and the one that scrapes nginx's own figures, if there is an nginx.

    Within the engine's network Prometheus asks the engine itself. Elsewhere nginx is in front of it, and wants a key.
    """
    engine = gateway = urlsplit(plan.base_url).netloc
    if in_network:
        engine, gateway = f"{SERVICE}:{plan.container_port}", f"{GATEWAY}:{gateway_port.PORT}"
    if plan.gateway is None:
        return [_job(JOB, plan, engine, {})]
    access = _gateway_credentials(plan, in_network=in_network)
    engine_access = {} if in_network else access
    figures = {"metrics_path": FIGURES, **access}
    if plan.role == "front":
        return [_job(GATEWAY_JOB, plan, gateway, figures)]
    return [_job(JOB, plan, engine, engine_access), _job(GATEWAY_JOB, plan, gateway, figures)]


def _job(job: str, plan: LaunchPlan, target: str, settings: dict[str, Any]) -> dict[str, Any]:
    # The names of jobs must differ; their label, which rules and panels ask for, is the same for all deployments.
    return {
        "job_name": f"{job}-{plan.deployment}",
        **settings,
        "static_configs": [{"targets": [target], "labels": {"job": job, **_labels(plan)}}],
    }


def _labels(plan: LaunchPlan) -> dict[str, str]:
    """Return the labels of a deployment; of a replica also its front and its number."""
    labels = {"deployment": plan.deployment}
    front, _, number = plan.deployment.rpartition("-")
    if plan.role == "replica":
        labels |= {"front": front, "replica": number}
    return labels


def _gateway_credentials(plan: LaunchPlan, *, in_network: bool) -> dict[str, Any]:
    """Return Prometheus' settings for the gateway; Prometheus resolves file names next to prometheus.yml."""
    access: dict[str, Any] = {"authorization": {"credentials_file": PurePosixPath(KEY_FILE).name}}
    if plan.gateway is not None and plan.gateway.tls:
        access["scheme"] = "https"
        access["tls_config"] = {"ca_file": PurePosixPath(certificate_file(plan)).name}
        if in_network:
            access["tls_config"]["server_name"] = "localhost"  # a name in this tool's own certificate
    return access


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


def _yaml(plans: Sequence[LaunchPlan], data: dict[str, Any]) -> str:
    hashes = ", ".join(plan.hash for plan in plans)
    head = f"# Rendered by deckard-deploy {__version__} for plan {hashes}; `monitor up` writes it anew.\n"
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
