import os
import re
import socket
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.running.docker.client import DockerClient, error_from_message
from deckard_deploy.running.docker.runtime import DockerRuntime


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def script(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def docker(
    folder: Path, *, endpoint: str = "unix:///var/run/docker.sock", compose: str = "echo 2.26.1-4"
) -> None:
    """Write a docker that answers two questions, and otherwise prints its environment and arguments."""
    script(
        folder,
        "docker",
        f'case "$1 $2" in "context inspect") echo "{endpoint}";; "compose version") {compose};;'
        ' *) echo "$DOCKER_HOST|$COMPOSE_FILE|$DOCKER_CONTEXT|$DOCKER_CONFIG|$*";; esac',
    )


def engine(folder: Path, **environment: str) -> DockerClient:
    return DockerClient(environment={"PATH": f"{folder}:/usr/bin:/bin", **environment}, say=lambda _: None)


def test_command_uses_endpoint_of_docker_context(programs):
    docker(programs, endpoint="unix:///run/user/1000/docker.sock")
    caller = {"DOCKER_CONTEXT": "rootless", "COMPOSE_FILE": "/x", "DOCKER_CONFIG": "/c"}
    said = engine(programs, **caller).command("ps", "-a", timeout_s=5).stdout
    assert said == "unix:///run/user/1000/docker.sock|||/c|ps -a\n"


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:2376", "ssh://me@there", "npipe:////./pipe/x", ""])
def test_remote_endpoint_is_refused(programs, endpoint):
    docker(programs, endpoint=endpoint)
    with pytest.raises(EnvironmentUnfitError, match="cannot be mounted there") as caught:
        engine(programs).command("ps", timeout_s=5)
    assert "docker context use default" in caught.value.hint


class InfoApi:
    """Docker's API as far as `require_supported` asks it."""

    def __init__(self, info: dict[str, object]) -> None:
        self._info = info

    def info(self) -> dict[str, object]:
        return self._info


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (
            {"ProductLicense": "Apache-2.0", "ServerVersion": "4.3.1"},
            "`docker` is podman 4.3.1, whose networks",
        ),
        ({"DockerRootDir": "/var/snap/docker/common"}, "`docker` is docker from snap, which cannot mount"),
        (
            {"OperatingSystem": "Docker Desktop", "ServerVersion": "29.1"},
            "`docker` is Docker Desktop 29.1, whose virtual",
        ),
    ],
)
def test_other_products_are_refused_by_name(programs, info, says):
    docker(programs)
    client = engine(programs)
    client.__dict__["api"] = InfoApi(info)  # where cached_property keeps it
    with pytest.raises(EnvironmentUnfitError, match=re.escape(says)):
        client.require_supported()


def test_own_engine_of_docker_is_supported(programs):
    docker(programs)
    client = engine(programs)
    client.__dict__["api"] = InfoApi({"DockerRootDir": "/var/lib/docker", "ServerVersion": "28.5.2"})
    client.require_supported()


def test_missing_docker_is_refused(programs):
    with pytest.raises(EnvironmentUnfitError, match="docker is not installed"):
        DockerClient(environment={"PATH": str(programs)}, say=lambda _: None).api  # noqa: B018  a question


def test_missing_context_shows_docker_message(programs):
    script(programs, "docker", 'echo "context \\"nope\\": context not found" >&2; exit 1')
    with pytest.raises(EnvironmentUnfitError, match='docker: context "nope": context not found') as caught:
        engine(programs).endpoint  # noqa: B018  a question
    assert caught.value.hint == "docker context ls"


@pytest.mark.parametrize("version", ["2.20.0", "v2.24.5", "2.26.1-4", "5.0.2"])
def test_compose_two_and_later_is_accepted(programs, version):
    docker(programs, compose=f"echo {version}")
    assert engine(programs).compose_version == version.removeprefix("v")


@pytest.mark.parametrize("version", ["1.29.2", "v2.19.9", "2.3.3"])
def test_older_compose_is_refused(programs, version):
    docker(programs, compose=f"echo {version}")
    with pytest.raises(EnvironmentUnfitError, match=r"is too old, 2\.20 is needed"):
        engine(programs).compose_version  # noqa: B018  a question


@pytest.mark.parametrize(
    "answer", ["echo; echo 'unknown command: docker compose' >&2; exit 1", "echo nonsense"]
)
@pytest.mark.parametrize("old", [True, False])
def test_compose_one_is_not_the_plugin(programs, answer, old):
    docker(programs, compose=answer)
    if old:
        script(programs, "docker-compose", "echo 1.29.2")
    with pytest.raises(EnvironmentUnfitError, match="docker has no compose plugin") as caught:
        engine(programs, PATH=f"{programs}").compose_version  # noqa: B018  a question
    assert ("docker-compose is not the plugin" in caught.value.message) is old
    assert "docker-compose-plugin" in caught.value.hint


@pytest.mark.parametrize("stale", [True, False])
def test_daemon_that_does_not_run_is_refused(programs, tmp_path, stale):
    if stale:  # the socket of a daemon that was killed
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "docker.sock"))
    docker(programs, endpoint=f"unix://{tmp_path}/docker.sock")
    with pytest.raises(EnvironmentUnfitError, match="is not running") as caught:
        engine(programs).api  # noqa: B018  a question
    assert caught.value.hint == "sudo systemctl start docker"


def test_daemon_that_hangs_times_out(programs, tmp_path, monkeypatch):
    monkeypatch.setattr("deckard_deploy.running.docker.client.CALL_TIMEOUT_S", 1.0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "docker.sock"))
        server.listen()
        docker(programs, endpoint=f"unix://{tmp_path}/docker.sock")
        with pytest.raises(EnvironmentUnfitError, match="did not answer within 1 s"):
            engine(programs).api  # noqa: B018  a question


@pytest.mark.skipif(os.geteuid() == 0, reason="root may talk to every socket")
def test_daemon_without_permission_is_refused(programs, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "docker.sock"))
        server.listen()
        (tmp_path / "docker.sock").chmod(0)
        docker(programs, endpoint=f"unix://{tmp_path}/docker.sock")
        with pytest.raises(EnvironmentUnfitError, match="no permission") as caught:
            engine(programs).api  # noqa: B018  a question
    assert "usermod" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "nvidia-container-toolkit"),
        ("Unknown runtime specified nvidia", "nvidia-container-toolkit"),
        ("listen tcp4 127.0.0.1:18005: bind: address already in use", "--port"),
        ("permission denied while trying to connect to the Docker daemon socket", "usermod"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl start docker"),
        ("something new", "docker info"),
    ],
)
def test_docker_messages_get_a_hint(words, hint):
    error = error_from_message(f"Error response from daemon: {words}")
    assert error.message == f"docker: {words}"
    assert hint in error.hint


def test_failed_command_shows_last_line(programs):
    docker(programs)
    script(
        programs,
        "docker",
        'case "$1" in context) echo unix:///x;; *) echo a >&2; echo " b " >&2; exit 1;; esac',
    )
    with pytest.raises(EnvironmentUnfitError, match=r"^docker: b$"):
        engine(programs).command("compose", "up", timeout_s=5)
    assert engine(programs).command("compose", "up", timeout_s=5, check=False).returncode == 1


def test_close_without_question_contacts_nothing(fake):
    runtime = DockerRuntime(fake.deployment, environment={}, say=lambda _: None)
    runtime.close()
