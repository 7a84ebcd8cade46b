"""The gateway in real docker compose, in front of a small server: networks, keys and certificate."""

import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from deckard_deploy.operations.gateway import has_stale_keys
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.rendering.gateway import CONFIG, render_gateway
from deckard_deploy.running.deploy import decide, restore_gateway
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.http import EndpointCredentials, session
from tests.e2e.gateway_attacks import Attack, attacks, got_through, request
from tests.support.docker_deployment import IMAGE, DockerDeployment, make_image
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker
NAME = "gwdock"
PROXY = f"deckard-{NAME}-gateway"
PROXY_IN_POD = f"{NAME}-pod-gateway"


@dataclass(frozen=True)
class Running:
    """An exposed deployment with TLS, on loopback all the same."""

    project: DockerDeployment
    plan: LaunchPlan
    keys: Keys
    folder: Path
    runtime: DockerRuntime

    def get(self, path: str, key: str, *, pinned: str | None = None) -> requests.Response:
        certificate = pinned or files.fingerprint(self.plan)
        with session(EndpointCredentials(key=key, pinned=certificate)) as asking:
            return asking.get(self.plan.base_url + path, timeout=10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, gateway_image: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gwdock")
    make_image(folder)
    project, keys = DockerDeployment(folder, NAME), Keys(folder / "state")
    gateway = Gateway(
        image=gateway_image, program=None, user="101:101", folder=str(project.deployment.folder / "gateway"),
        exposed=True, tls=True, certificate=None, certificate_key=None,
    )  # fmt: skip
    plan = project.plan(port=free_port(), changes={"gateway": gateway})
    files.write_gateway_files(plan, keys, environment=dict(os.environ), say=project.said.append)
    release, launch = project.stored(plan)
    compose = render_compose(plan, launch_id=launch.launch_id)
    project.releases.store(plan.hash, {CONFIG: render_gateway(plan), "compose.yaml": compose})
    release.record(launch)
    runtime = project.runtime()
    runtime.start(release)
    running = Running(project, plan, keys, Path(gateway.folder), runtime)
    try:
        eventually(lambda: answers(lambda: running.get("/health/live", "none").status_code == 200))
        yield running
    finally:
        runtime.stop()
    assert project.left() == []


def answers(holds: Callable[[], bool]) -> bool:
    """Return whether it holds; not while nothing listens."""
    try:
        return holds()
    except requests.ConnectionError:
        return False


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def networks_of(container: str) -> dict[str, str]:
    """Network -> whether docker calls it internal, which is that it forwards nothing in or out."""
    names = docker(
        "inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", container
    )
    return {
        name: docker("network", "inspect", "--format", "{{.Internal}}", name).strip()
        for name in names.split()
    }


def test_only_gateway_reaches_engine(running: Running) -> None:
    # The small server's own 404: it has no /v1.
    assert running.get("/models", running.keys.own()).status_code == 404
    assert "<H1>404" in running.get("/models", running.keys.own()).text
    assert running.get("/models", "x").status_code == 401
    ports = "{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}} {{end}}{{end}}"
    assert docker("inspect", "--format", ports, f"deckard-{NAME}").split() == []
    assert docker("inspect", "--format", ports, PROXY).split() == ["127.0.0.1"]


def test_engine_network_has_no_exit(running: Running) -> None:
    """Not even to this host, of which any other container reaches what listens on a bridge; the gateway's does."""
    assert networks_of(f"deckard-{NAME}") == {f"deckard-{NAME}_private": "true"}
    assert sorted(networks_of(PROXY).values()) == ["false", "true"]
    bridge = "{{(index .IPAM.Config 0).Gateway}}"
    with socket.socket() as listener:
        listener.bind((docker("network", "inspect", "--format", bridge, f"deckard-{NAME}_public").strip(), 0))
        listener.listen()
        host, port = listener.getsockname()
        assert connects(PROXY, "bash", "-c", f"</dev/tcp/{host}/{port}")
        assert not connects(f"deckard-{NAME}", "/bin/busybox", "nc", "-w", "2", host, str(port))
    assert connects(f"deckard-{NAME}", "/bin/busybox", "nc", "-w", "2", PROXY, "8080")  # its nc can
    assert running.runtime.observe().state == "running"


def connects(container: str, *command: str) -> bool:
    """Return True if a connection can be opened from inside a container."""
    done = subprocess.run(
        ["docker", "exec", container, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=30,
    )
    return done.returncode == 0


def test_client_pins_certificate(running: Running) -> None:
    assert requests.get(
        f"{running.plan.base_url}/health/live", verify=str(running.folder / "certificate.pem"), timeout=10
    ).ok
    with pytest.raises(requests.exceptions.SSLError):
        running.get("/health/live", "x", pinned=64 * "0")
    with pytest.raises(requests.exceptions.SSLError):  # the control: nobody else vouches for it
        requests.get(f"{running.plan.base_url}/health/live", timeout=10)


def test_keys_change_without_restart(running: Running) -> None:
    instance = running.runtime.observe().instance_id
    with running.keys.lock():
        key = running.keys.add("alice")
    assert running.get("/models", key).status_code == 401
    files.write_gateway_files(running.plan, running.keys, environment=dict(os.environ), say=print)
    running.runtime.reload()
    eventually(lambda: answers(lambda: running.get("/models", key).status_code == 200))
    with running.keys.lock():
        running.keys.revoke("alice")
    files.write_gateway_files(running.plan, running.keys, environment=dict(os.environ), say=print)
    directory = StateDir(running.keys.folder.parent)
    assert has_stale_keys(running.plan, directory)  # as when `keys revoke` is interrupted here
    running.runtime.reload()
    eventually(lambda: answers(lambda: running.get("/models", key).status_code == 401))
    eventually(lambda: not has_stale_keys(running.plan, directory))
    assert running.runtime.observe().instance_id == instance


def test_no_attack_reaches_engine(running: Running) -> None:
    """By the pages of the small server; nginx's own have no capital letters. The control is the tool's own key."""
    address, of_engine = ("127.0.0.1", running.plan.port), (b"<H1>",)
    tls = ssl.create_default_context(cafile=running.folder / files.CERTIFICATE)
    assert len(attacks()) >= 300
    assert got_through(address, attacks(), marks=of_engine, tls=tls) == []
    keyed = Attack("keyed", request("GET", "/v1/models", more=f"x-api-key: {running.keys.own()}"))
    assert got_through(address, [keyed], marks=of_engine, tls=tls) == ["keyed"]


def test_only_gateway_user_reads_keys(running: Running) -> None:
    for file in running.folder.iterdir():
        assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (
            0o600,
            101 if os.getuid() == 0 else os.getuid(),
        )
    own = running.keys.own().rpartition("-")[2]
    release = running.project.releases.all()[0].folder
    shown = docker("inspect", PROXY, f"deckard-{NAME}") + docker("top", PROXY) + docker("logs", PROXY)
    assert own not in shown + "".join(file.read_text() for file in release.iterdir() if file.is_file())
    assert own in (running.keys.folder / "own.key").read_text()


def test_gateway_container_is_confined(running: Running) -> None:
    assert running.plan.gateway is not None
    inspected = docker("inspect", "--format", "{{json .HostConfig}}", PROXY)
    for words in ('"ReadonlyRootfs":true', '"CapDrop":["ALL"]', "no-new-privileges:true", '"PidsLimit":64'):
        assert words in inspected
    assert docker("exec", PROXY, "id", "-u").strip() == "101"


def test_pod_gateway_requires_key_for_any_host(running: Running) -> None:
    """Two containers on one loopback address, as `render k8s` has them, made by docker in place of Kubernetes."""
    pod, port, folder = f"{NAME}-pod", free_port(), running.project.deployment.folder
    config, access = folder / "pod.conf", folder / "pod"
    config.write_text(render_gateway(running.plan, in_pod=True).replace(" ssl;", ";"))
    access.mkdir(mode=0o755)
    (access / "access.conf").write_text(running.keys.access())
    for file in ("certificate.pem", "certificate.key"):
        (access / file).write_text((running.folder / file).read_text())
    mounts = ("-v", f"{config}:/nginx.conf:ro", "-v", f"{access}:/etc/deckard:ro", "--user", "101:101")
    network = ("--network", f"deckard-{NAME}_public")
    docker(
        "run", "-d", "--name", pod, *network, "-p", f"127.0.0.1:{port}:8080", IMAGE, *running.plan.entrypoint
    )
    try:
        nginx = (
            str(running.plan.gateway and running.plan.gateway.image),
            "nginx",
            "-e",
            "stderr",
            "-c",
            "/nginx.conf",
        )
        docker("run", "-d", "--name", PROXY_IN_POD, "--network", f"container:{pod}", *mounts, *nginx)
        url = f"http://127.0.0.1:{port}/v1"
        eventually(lambda: answers(lambda: requests.get(f"{url}/health/live", timeout=10).ok))
        own = {"Authorization": f"Bearer {running.keys.own()}"}
        # The small server's own.
        assert requests.get(f"{url}/models", headers=own, timeout=10).status_code == 404
        for host in ("localhost", "127.0.0.1", f"127.0.0.1:{port}", "deckard-spark"):
            assert requests.get(f"{url}/models", headers={"Host": host}, timeout=10).status_code == 401
    finally:
        docker("rm", "-f", PROXY_IN_POD, pod)


def test_stopped_gateway_is_started_again_alone(running: Running) -> None:
    before = running.runtime.observe()
    release = running.project.releases.all()[0].load()
    for remove in (("stop", PROXY), ("kill", PROXY), ("rm", "--force", PROXY)):
        docker(*remove)
        seen = running.runtime.observe()
        assert (seen.state, seen.gateway) == ("running", "missing" if remove[0] == "rm" else "exited")
        launch = release.recorded_launch().model_copy(update={"launch_id": str(seen.launch_id)})
        assert decide(release.plan_hash, seen, launch).action == "gateway"
        restore_gateway(running.project.context(lambda *_: None), release)
        assert running.runtime.observe() == before
        assert eventually(lambda: answers(lambda: running.get("/health/live", "none").status_code == 200))


def test_stop_without_the_engines_container_leaves_nothing(running: Running) -> None:
    """The last test here. Somebody has removed the engine's container, and the gateway runs on."""
    docker("rm", "--force", f"deckard-{NAME}")
    seen = running.runtime.observe()
    assert (seen.state, seen.gateway) == ("missing", "running")
    running.runtime.stop()
    assert running.project.left() == []
