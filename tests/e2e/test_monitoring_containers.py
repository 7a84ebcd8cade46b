"""The compose add-on on a real engine: Debian's Prometheus in the rendered container, on a deployment's network.

No registry is asked: the image is made of Debian's binary. Grafana is not in Debian; in its place busybox shows that
its user can read the password, and nothing but its data can be written.
"""

import os
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from deckard_deploy.operations.monitoring import _write
from deckard_deploy.rendering.monitoring import (
    COMPOSE_FILE,
    GRAFANA_IMAGE,
    PASSWORD_FILE,
    PROMETHEUS_IMAGE,
    MonitoringSettings,
    project_name,
    render_monitoring,
)
from tests.e2e.prometheus import ask
from tests.support.docker_deployment import IMAGE, DockerDeployment, docker, make_image
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker
PROMETHEUS = "deckard-deploy-test/prometheus:local"
PAGE = Path(__file__).parents[1] / "unit" / "measuring" / "pages" / "vllm-0.19.1.txt"


def make_prometheus() -> None:
    """An image of this machine's Prometheus and the libraries that it names."""
    binary = Path("/usr/bin/prometheus")
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout.split()
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for file in (str(binary), *(word for word in listed if word.startswith("/"))):
            tar.add(Path(file).resolve(), arcname=file)
        for folder in ("prometheus", "tmp"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(made)
    command = ["docker", "import", "--change", f'ENTRYPOINT ["{binary}"]', "-", PROMETHEUS]
    subprocess.run(command, input=archive.getvalue(), check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DockerDeployment]:
    """A deployment whose container serves the recorded page of a real vLLM."""
    make_image(tmp_path)
    make_prometheus()
    made = DockerDeployment(tmp_path, "x" + secrets.token_hex(3))
    (tmp_path / "metrics").write_bytes(PAGE.read_bytes())
    yield made
    made.runtime().stop()
    for runtime in made.runtimes:
        runtime.close()
    docker("rmi", "-f", IMAGE, PROMETHEUS)


def test_prometheus_container_reaches_engine(project: DockerDeployment, tmp_path: Path) -> None:
    plan = project.plan(port=free_port(), changes={"engine": "vllm-0.19.1"})
    page = plan.mounts[0].model_copy(update={"source": str(tmp_path / "metrics"), "target": "/www/metrics"})
    plan = plan.model_copy(update={"mounts": (*plan.mounts, page)})
    project.started(plan)
    folder, port = tmp_path / "monitoring", free_port()
    user = f"{os.getuid()}:{os.getgid()}"
    place = MonitoringSettings(folder=str(folder), user=user, prometheus_port=port, grafana_port=free_port())
    texts = render_monitoring(plan, place)
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
