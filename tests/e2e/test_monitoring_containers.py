"""The compose add-on on a real engine: Debian's Prometheus in the rendered container, on a deployment's network.

No registry is asked: the image is made of Debian's binary. Grafana is not in Debian; in its place busybox shows that
its user can read the password, and nothing but its data can be written.
"""

import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from deckard_deploy.operations.monitoring import Images, _write, start, stop
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.monitoring import (
    COMPOSE_FILE,
    GRAFANA_IMAGE,
    PASSWORD_FILE,
    PROMETHEUS_IMAGE,
    SHARED_PROJECT,
    MonitoringSettings,
    project_name,
    render_monitoring,
)
from tests.e2e.prometheus import ask
from tests.e2e.prometheus import make_image as make_prometheus
from tests.support.docker_deployment import IMAGE, DockerDeployment, deployment_in, docker, make_image
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker
PROMETHEUS = "deckard-deploy-test/prometheus:local"
PAGE = Path(__file__).parents[1] / "unit" / "measuring" / "pages" / "vllm-0.19.1.txt"


@pytest.fixture
def deployments(tmp_path: Path) -> Iterator[list[DockerDeployment]]:
    """Two deployments whose containers serve the recorded page of a real vLLM."""
    make_image(tmp_path)
    make_prometheus(PROMETHEUS)
    (tmp_path / "metrics").write_bytes(PAGE.read_bytes())
    with contextlib.ExitStack() as stack:
        names = [f"{letter}{secrets.token_hex(3)}" for letter in "xy"]
        yield [stack.enter_context(deployment_in(tmp_path, name)) for name in names]
    docker("rmi", "-f", IMAGE, PROMETHEUS)


def serve_page(project: DockerDeployment, folder: Path) -> LaunchPlan:
    plan = project.plan(port=free_port(), changes={"engine": "vllm-0.19.1"})
    page = plan.mounts[0].model_copy(update={"source": str(folder / "metrics"), "target": "/www/metrics"})
    plan = plan.model_copy(update={"mounts": (*plan.mounts, page)})
    project.started(plan)
    return plan


def test_prometheus_container_reaches_engine(deployments: list[DockerDeployment], tmp_path: Path) -> None:
    plan = serve_page(deployments[0], tmp_path)
    folder, port = tmp_path / "monitoring", free_port()
    user = f"{os.getuid()}:{os.getgid()}"
    place = MonitoringSettings(folder=str(folder), user=user, prometheus_port=port, grafana_port=free_port())
    texts = render_monitoring([plan], place)
    stand_in = f'{IMAGE}\n    entrypoint: ["/bin/sleep", "600"]'
    texts[COMPOSE_FILE] = (
        texts[COMPOSE_FILE].replace(PROMETHEUS_IMAGE, PROMETHEUS).replace(GRAFANA_IMAGE, stand_in)
    )
    _write(folder, texts)
    compose = [
        "compose",
        "--project-name",
        project_name(plan.deployment),
        "--file",
        str(folder / COMPOSE_FILE),
    ]
    docker(*compose, "up", "--detach")
    try:
        eventually(lambda: ask(port, 'up{job="vllm"} == 1'))
        assert ask(port, "sum(vllm:generation_tokens_total)")
        grafana = f"{project_name(plan.deployment)}-grafana-1"
        busybox = ("exec", grafana, "/bin/busybox")
        password = docker(*busybox, "cat", "/run/secrets/grafana_admin_password")
        assert password == (folder / PASSWORD_FILE).read_text(encoding="utf-8")
        assert password not in docker("inspect", grafana)
        docker(*busybox, "touch", "/var/lib/grafana/here")
        for path in ("/etc/grafana/provisioning/new", "/etc/dashboards/new", "/new"):
            with pytest.raises(subprocess.CalledProcessError):
                docker(*busybox, "touch", path)
        for name in ("prometheus", "grafana"):
            ports = docker("port", f"{project_name(plan.deployment)}-{name}-1").split()
            assert ports[-1].startswith("127.0.0.1:")
    finally:
        docker(*compose, "down")


def grafana_stand_in() -> str:
    """Return the image of a program that only waits."""
    dockerfile = f'FROM {IMAGE}\nENTRYPOINT ["/bin/sleep", "600"]\n'
    command = ["docker", "build", "--quiet", "-"]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    made = subprocess.run(
        command, input=dockerfile, env=environment, capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


def test_one_stack_watches_several_deployments(deployments: list[DockerDeployment], tmp_path: Path) -> None:
    first, second = (serve_page(deployment, tmp_path).deployment for deployment in deployments)
    everything, port = Selection(tmp_path / "state"), free_port()
    images = Images(PROMETHEUS, grafana_stand_in())
    try:
        start(everything, SILENT, prometheus_port=port, grafana_port=free_port(), images=images, every=True)
        eventually(lambda: len(ask(port, 'up{job="vllm"} == 1')) == 2)
        dashboards = tmp_path / "state" / "monitoring" / "dashboards"
        found = {path.name: json.loads(path.read_text()) for path in dashboards.iterdir()}
        assert set(found) == {"deckard.json", f"of-{first}.json", f"of-{second}.json"}
        assert len({each["uid"] for each in found.values()}) == 3
        of_first = 'vllm:num_requests_running{deployment="' + first + '"}'
        assert [each["metric"]["deployment"] for each in ask(port, of_first)] == [first]
        docker("rm", "-f", f"deckard-{second}")
        pending = 'ALERTS{alertname="ServerDown",alertstate="pending"}'
        eventually(lambda: [each["metric"]["deployment"] for each in ask(port, pending)] == [second], 90)
        rules = requests.get(f"http://127.0.0.1:{port}/api/v1/rules", timeout=10).json()["data"]["groups"]
        assert {group["name"] for group in rules} == {first, second}
        assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
        for query in (target["expr"] for each in found.values() for target in targets(each)):
            ask(port, query.replace("$__rate_interval", "1m"))  # Prometheus accepts it
    finally:
        stopped = stop(everything, SILENT, every=True)
    assert stopped == ("these deployments", True)
    ours = f"label=com.docker.compose.project={SHARED_PROJECT}"
    assert docker("ps", "--all", "--quiet", "--filter", ours) == ""
    docker("rmi", "-f", images.grafana)


def targets(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in dashboard["panels"] for target in panel["targets"]]
