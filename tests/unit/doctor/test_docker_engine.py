"""The engine behind the docker command: recorded answers of docker, podman and others, and malformed ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.doctor import docker_engine
from deckard_deploy.doctor.facts import Docker, Image
from deckard_deploy.doctor.host import Host
from tests.support.rule_cases import ANY, IMAGE, target

INFO = {"ServerVersion": "28.2.2", "Architecture": "aarch64", "Runtimes": {"runc": {}, "nvidia": {}}}


def fake_docker(
    program, info: object, *, status: int = 0, words: str = "", compose: str = "echo 2.36.2"
) -> None:
    program(
        "docker",
        f"""case "$1" in
compose) {compose} ;;
*) cat <<'END'
{info if isinstance(info, str) else json.dumps(info)}
END
echo '{words}' >&2; exit {status} ;;
esac""",
    )


def test_docker_info_is_parsed(host: Host, program):
    fake_docker(program, INFO)
    assert docker_engine.docker(host, ANY)["docker"] == Docker(
        installed=True,
        version="28.2.2",
        architecture="aarch64",
        runtimes=("nvidia", "runc"),
        compose="2.36.2",
    )


def test_missing_docker_is_reported(host: Host):
    assert docker_engine.docker(host, ANY)["docker"] == Docker(
        installed=False, problem="docker is not installed"
    )


@pytest.mark.parametrize(
    "words",
    [
        # docker 28.2.2 and 20.10, seen
        "Cannot connect to the Docker daemon at unix:///nonexistent. Is the docker daemon running?",
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
    ],
)
def test_unreachable_docker_reports_its_error(host: Host, program, words: str):
    fake_docker(program, {"ServerVersion": "", "Runtimes": None}, status=1, words=words)
    found = docker_engine.docker(host, ANY)["docker"]
    assert (found.installed, found.problem, found.version) == (True, f"docker: {words}", None)


@pytest.mark.parametrize(
    "info", ["", "null", "[]", '"text"', "{", "[" * 100_000, '{"ServerVersion": 5}', "{}"]
)
def test_garbage_from_docker_is_a_problem(host: Host, program, info: str):
    fake_docker(program, info, compose="echo docker: \\'compose\\' is not a docker command. >&2; exit 1")
    found = docker_engine.docker(host, ANY)["docker"]
    assert (found.problem, found.compose) == ("docker info: not the JSON that was expected", None)


@pytest.mark.parametrize(
    ("text", "version"), [("v2.20.0", "2.20.0"), ("2.26.1-4", "2.26.1-4"), ("dev", None)]
)
def test_compose_version_is_parsed(host: Host, program, text: str, version: str | None):
    fake_docker(program, INFO, compose=f"echo {text}")
    assert docker_engine.docker(host, ANY)["docker"].compose == version


def test_image_is_read_if_present(host: Host, program):
    environment = ["PATH=/usr/bin", "CUDA_VERSION=13.0.1", "NVIDIA_REQUIRE_CUDA=cuda>=13.0"]
    fake_docker(program, {"Architecture": "arm64", "Os": "linux", "Config": {"Env": environment}})
    expected = Image(reference=IMAGE, architecture="arm64", cuda="13.0.1")
    assert docker_engine.image(host, target()) == {"image": expected}
    assert docker_engine.image(host, ANY) == {}
    fake_docker(program, "[]", status=1, words=f"Error: No such image: {IMAGE}")
    assert docker_engine.image(host, target()) == {}
    fake_docker(program, {"Config": None, "Architecture": ""})
    assert docker_engine.image(host, target()) == {"image": Image(reference=IMAGE)}


def docker_of(host: Host, program, **changes: Any) -> Docker:
    fake_docker(program, {**INFO, **changes})
    found = docker_engine.docker(host, ANY)["docker"]
    assert isinstance(found, Docker)
    return found


PODMAN_BY_API = {  # pkg/api/handlers/compat/info.go
    "ServerVersion": "5.4.1",
    "DockerRootDir": "/srv/other",
    "ProductLicense": "Apache-2.0",
    "Runtimes": {"crun": {}, "kata": {}},
}


@pytest.mark.parametrize(
    ("changes", "product"),
    [
        ({}, None),
        ({"DockerRootDir": "/raid/docker", "ProductLicense": "Community Engine"}, None),
        (PODMAN_BY_API, "podman"),
        ({"DockerRootDir": "/home/u/.local/share/containers/storage"}, "podman"),
        ({"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, "docker from snap"),
        ({"OperatingSystem": "Docker Desktop"}, "Docker Desktop"),
        ({"OperatingSystem": "Docker Desktop (containerized)"}, "Docker Desktop"),
    ],
)
def test_product_is_named_by_its_own_marks(host: Host, program, changes: dict[str, Any], product: str | None):
    assert docker_of(host, program, **changes).product == product


def test_podman_instead_of_docker_is_recognized(host: Host, program):
    shim = {"host": {"arch": "arm64"}, "store": {"graphRoot": "/g"}, "version": {"Version": "5.4.1"}}
    fake_docker(program, shim, words="Emulate Docker CLI using podman.")
    assert docker_engine.docker(host, ANY)["docker"] == Docker(
        installed=True, product="podman", version="5.4.1"
    )
    assert docker_engine.images_folder(host) == "/g"


def test_stopped_docker_desktop_is_recognized_by_its_context(host: Host, program):
    words = "Cannot connect to the Docker daemon at unix:///home/u/.docker/desktop/docker.sock."
    stopped = {"ServerVersion": "", "ClientInfo": {"Context": "desktop-linux"}}
    fake_docker(program, stopped, status=1, words=words)
    assert docker_engine.docker(host, ANY)["docker"].product == "Docker Desktop"


def write_context(home: Path, name: str, address: str) -> None:
    folder = home / ".docker/contexts/meta" / name.encode().hex()
    folder.mkdir(parents=True)
    meta = {"Name": name, "Endpoints": {"docker": {"Host": address, "SkipTLSVerify": False}}}
    (folder / "meta.json").write_text(json.dumps(meta))


def test_endpoint_comes_from_the_context_without_its_host(host: Host, program):
    home = Path(host.environment["HOME"])
    write_context(home, "lab", "ssh://alice@lab.example")
    write_context(home, "other", "tcp://10.0.0.5:2376")
    assert docker_of(host, program, ClientInfo={"Context": "default"}).endpoint is None
    found = docker_of(host, program, ClientInfo={"Context": "lab"})
    assert (found.endpoint, found.named_by) == ("ssh", "docker context use")
    assert "alice" not in found.model_dump_json()


@pytest.mark.parametrize(
    ("address", "scheme"),
    [
        ("tcp://10.0.0.5:2375", "tcp"),
        ("unix:///run/user/1000/docker.sock", "unix"),
        ("lab:2375", "lab"),
        ("[", "unknown"),
        ("", None),
    ],
)
def test_docker_host_names_the_endpoint(host: Host, program, address: str, scheme: str | None):
    named = replace(host, environment={**host.environment, "DOCKER_HOST": address})
    found = docker_of(named, program)
    assert (found.endpoint, found.named_by) == (scheme, "DOCKER_HOST" if address else None)


def test_podmans_socket_is_recognized(host: Host, program):
    environment = {**host.environment, "DOCKER_HOST": "unix:///run/user/1000/podman/podman.sock"}
    assert docker_of(replace(host, environment=environment), program).product == "podman"


def test_settings_of_the_engine_are_read(host: Host, program):
    found = docker_of(
        host,
        program,
        SecurityOptions=["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns", 5],
        CDISpecDirs=["/etc/cdi"],
        DiscoveredDevices=[{"Source": "cdi", "ID": "nvidia.com/gpu=all"}, {"ID": "vendor.com/nic=0"}],
        LiveRestoreEnabled=True,
        KernelVersion="6.17.0-1032-nvidia",
    )
    assert (found.rootless, found.security) == (True, ("seccomp", "rootless", "cgroupns"))
    assert (found.cdi, found.cdi_devices, found.live_restore) == (True, ("nvidia.com/gpu=all",), True)
    assert found.kernel == "6.17.0-1032-nvidia"
    malformed = docker_of(host, program, SecurityOptions=3, DiscoveredDevices={"a": 1}, CDISpecDirs=None)
    assert (malformed.security, malformed.cdi_devices, malformed.cdi) == ((), (), False)


SNAPSHOTTER = {
    "DockerRootDir": "/raid/docker",
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
}


@pytest.mark.parametrize(
    ("info", "files", "folder"),
    [
        ({"DockerRootDir": "/raid/docker"}, {}, "/raid/docker"),
        ({}, {}, "/var/lib/docker"),
        ({"DockerRootDir": "raid"}, {}, "/var/lib/docker"),
        (SNAPSHOTTER, {}, "/var/lib/containerd"),
        (
            SNAPSHOTTER,
            {"/etc/containerd/config.toml": 'version = 2\nroot = "/raid/containerd"\n'},
            "/raid/containerd",
        ),
        (
            SNAPSHOTTER,
            {"/etc/containerd/config.toml": '#root = "/x"\n[plugins]\n  root = "/y"\n'},
            "/var/lib/containerd",
        ),
        (
            {**SNAPSHOTTER, "Containerd": {"Address": "/var/run/docker/containerd/containerd.sock"}},
            {"/etc/containerd/config.toml": 'root = "/raid/containerd"\n'},
            "/raid/docker/containerd/daemon",
        ),
        (
            {**SNAPSHOTTER, "Containerd": {"Address": "/run/containerd/containerd.sock"}},
            {},
            "/var/lib/containerd",
        ),
        ({**SNAPSHOTTER, "SecurityOptions": ["name=rootless"]}, {}, "/raid/docker/containerd/daemon"),
    ],
)
def test_folder_of_images_is_where_they_are_unpacked(
    host: Host, program, info: dict[str, Any], files: dict[str, str], folder: str
):
    for name, text in files.items():
        path = host.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    fake_docker(program, {**INFO, **info})
    assert docker_engine.images_folder(host) == folder
