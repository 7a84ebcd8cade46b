"""The docker runtime with containers that vanish between two questions."""

from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.planning.gateway import REPLICAS_FOLDER, SOCKET
from deckard_deploy.running.docker.runtime import (
    DEPLOYMENT_LABEL,
    GATEWAY_LABEL,
    LAUNCH_LABEL,
    PLAN_LABEL,
    DockerRuntime,
)
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.runtime import MISSING

COMPOSE = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"


class VanishingContainers:
    """A docker API with a server and its gateway; those in `gone` vanish after they were listed."""

    def __init__(self, folder: Path, gone: set[str]) -> None:
        ours = {
            COMPOSE: "deckard-box",
            f"{COMPOSE}.working_dir": f"{folder}/releases/a",
            DEPLOYMENT_LABEL: "box",
        }
        server = {**ours, SERVICE: "vllm", LAUNCH_LABEL: "l1", PLAN_LABEL: "aa", GATEWAY_LABEL: ""}
        self.labels = {"server": server, "gateway": {**ours, SERVICE: "gateway", GATEWAY_LABEL: ""}}
        self._gone = gone
        self.signals: list[str] = []

    def containers(self, *, filters: dict[str, list[str]], **_: object) -> list[dict[str, Any]]:
        names = {label.partition("=")[0] for label in filters["label"]}
        return [
            {"Id": name, "Names": [f"/{name}"], "State": "running", "Labels": labels}
            for name, labels in self.labels.items()
            if names <= labels.keys()
        ]

    def networks(self, **_: object) -> list[dict[str, Any]]:
        return [{"Name": "server"}, {"Name": "gateway"}]

    def inspect_network(self, name: str) -> dict[str, Any]:
        return {**self.inspect_container(name), "Containers": {}}

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name in self._gone:
            raise NotFound(f"no such container: {name}")
        state = {"Restarting": False, "Running": True, "ExitCode": 0, "OOMKilled": False}
        config = {"Labels": self.labels[name]}
        return {"Id": name, "State": state, "Config": config, "RestartCount": 0, "Image": "sha256:0"}

    def kill(self, name: str, number: str) -> None:
        self.inspect_container(name)
        self.signals.append(f"{name} {number}")

    def close(self) -> None:
        pass


def runtime_with(
    tmp_path: Path, gone: set[str], name: str = "box"
) -> tuple[DockerRuntime, VanishingContainers]:
    deployment = StateDir(tmp_path).create(name)
    runtime = DockerRuntime(deployment, environment={}, say=print)
    vanishing = VanishingContainers(deployment.folder, gone)
    runtime.client.__dict__["api"] = vanishing  # replaces the client of the first question
    return runtime, vanishing


@pytest.mark.parametrize("gone", [{"server"}, {"server", "gateway"}])
def test_container_removed_during_observe_is_missing(tmp_path: Path, gone: set[str]) -> None:
    assert runtime_with(tmp_path, set())[0].observe().state == "running"
    assert runtime_with(tmp_path, gone)[0].observe() == MISSING


def test_removed_gateway_is_not_a_removed_engine(tmp_path: Path) -> None:
    assert runtime_with(tmp_path, set())[0].observe().gateway == "running"
    seen = runtime_with(tmp_path, {"gateway"})[0].observe()
    assert (seen.state, seen.gateway) == ("running", "missing")


def test_reload_ignores_removed_gateway(tmp_path: Path) -> None:
    for gone, signals in ((set[str](), ["gateway HUP"]), ({"gateway"}, [])):
        runtime, vanishing = runtime_with(tmp_path, gone)
        runtime.reload()
        assert vanishing.signals == signals


def test_reload_signals_nothing_that_a_person_started(tmp_path: Path) -> None:
    """`render compose` and `docker compose up` by hand: the engine has the gateway's label, and no launch."""
    runtime, vanishing = runtime_with(tmp_path, set())
    for labels in vanishing.labels.values():
        labels[f"{COMPOSE}.working_dir"] = "/home/person/stack"
        labels.pop(LAUNCH_LABEL, None)
    runtime.reload()
    assert vanishing.signals == []


def test_reload_never_signals_an_engine(tmp_path: Path) -> None:
    runtime, vanishing = runtime_with(tmp_path, set())
    del vanishing.labels["server"][LAUNCH_LABEL]
    runtime.reload()
    assert vanishing.signals == ["gateway HUP"]


class FrontThatLists(VanishingContainers):
    """A docker API whose front lists the sockets of replicas, or fails to."""

    def __init__(self, folder: Path, code: int) -> None:
        super().__init__(folder, set())
        self._code = code

    def exec_create(self, name: str, command: list[str]) -> dict[str, str]:
        self.inspect_container(name)
        return {"Id": " ".join(command)}

    def exec_start(self, command: str) -> bytes:
        assert command == "cat /proc/net/unix"
        name = f"{REPLICAS_FOLDER}/2/{SOCKET}"
        return f"Num Path\n0: 1 {name}\n0: 2 /other\n".encode() if self._code == 0 else b"exec failed"

    def exec_inspect(self, command: str) -> dict[str, int]:
        assert command
        return {"ExitCode": self._code}


def test_connections_that_cannot_be_listed_are_not_none(tmp_path: Path) -> None:
    runtime, _ = runtime_with(tmp_path, set(), name="box-2")
    runtime.client.__dict__["api"] = FrontThatLists(tmp_path, 0)
    assert runtime.connections() == 1
    runtime.client.__dict__["api"] = FrontThatLists(tmp_path, 126)
    with pytest.raises(
        EnvironmentUnfitError, match=r"the requests of box-2 cannot be counted.* ended with 126"
    ):
        runtime.connections()


def test_removed_network_is_not_unused(tmp_path: Path) -> None:
    assert runtime_with(tmp_path, {"gateway"})[0]._unused_networks() == ["server"]
