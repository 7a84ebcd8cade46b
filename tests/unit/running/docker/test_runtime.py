"""What the runtime makes of containers that go between two questions, which no real engine does on demand."""

from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

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


class Going:
    """An engine with a server and its gateway, of which those in `gone` are no more once they were listed."""

    def __init__(self, folder: Path, gone: set[str]) -> None:
        ours = {
            COMPOSE: "deckard-box",
            f"{COMPOSE}.working_dir": f"{folder}/releases/a",
            DEPLOYMENT_LABEL: "box",
        }
        server = {**ours, LAUNCH_LABEL: "l1", PLAN_LABEL: "aa", GATEWAY_LABEL: ""}
        self._labels = {"server": server, "gateway": {**ours, GATEWAY_LABEL: ""}}
        self._gone = gone
        self.told: list[str] = []

    def containers(self, *, filters: dict[str, list[str]], **_: object) -> list[dict[str, Any]]:
        names = {label.partition("=")[0] for label in filters["label"]}
        return [
            {"Id": name, "Names": [f"/{name}"], "State": "running", "Labels": labels}
            for name, labels in self._labels.items()
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
        config = {"Labels": self._labels[name]}
        return {"Id": name, "State": state, "Config": config, "RestartCount": 0, "Image": "sha256:0"}

    def kill(self, name: str, number: str) -> None:
        self.inspect_container(name)
        self.told.append(f"{name} {number}")

    def close(self) -> None:
        pass


def runtime_with(tmp_path: Path, gone: set[str]) -> tuple[DockerRuntime, Going]:
    deployment = StateDir(tmp_path).create("box")
    runtime, going = DockerRuntime(deployment, environment={}, say=print), Going(deployment.folder, gone)
    runtime.engine.__dict__["api"] = going  # in place of the client that would be made at the first question
    return runtime, going


@pytest.mark.parametrize("gone", [{"server"}, {"gateway"}, {"server", "gateway"}])
def test_container_removed_during_observe_is_missing(tmp_path: Path, gone: set[str]) -> None:
    assert runtime_with(tmp_path, set())[0].observe().state == "running"
    assert runtime_with(tmp_path, gone)[0].observe() == MISSING


def test_reload_ignores_removed_gateway(tmp_path: Path) -> None:
    for gone, told in ((set[str](), ["gateway HUP"]), ({"gateway"}, [])):
        runtime, going = runtime_with(tmp_path, gone)
        runtime.reload()
        assert going.told == told


def test_removed_network_is_not_unused(tmp_path: Path) -> None:
    assert runtime_with(tmp_path, {"gateway"})[0]._unused_networks() == ["server"]
