"""`docker info` of several engines: recorded answers, cut to the fields that are read."""

from typing import Any

import pytest

from deckard_deploy.system.docker_info import gpu_driver, is_rootless, parse, product

DOCKER_20 = {"Runtimes": {"io.containerd.runc.v2": {}, "runc": {}}, "DockerRootDir": "/var/lib/docker"}
# dockerd 26.1.5 with features.cdi and no nvidia runtime (reference: the ops test of 2026-11-30).
CDI_ONLY = {**DOCKER_20, "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"]}
ROOTLESS = {
    **DOCKER_20,
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"],
}


@pytest.mark.parametrize(
    ("info", "driver"),
    [
        ({**CDI_ONLY, "Runtimes": {"nvidia": {}, "runc": {}}}, "nvidia"),
        ({**DOCKER_20, "Runtimes": {"nvidia-container-runtime": {}}}, "nvidia"),
        (CDI_ONLY, "cdi"),
        (DOCKER_20, None),
        ({**CDI_ONLY, "CDISpecDirs": []}, None),
        ({}, None),
        ({"Runtimes": ["nvidia"]}, None),
    ],
)
def test_gpu_driver_is_what_engine_has(info: dict[str, Any], driver: str | None) -> None:
    assert gpu_driver(info) == driver


def test_rootless_engine_is_recognized() -> None:
    assert is_rootless(ROOTLESS)
    for info in (DOCKER_20, {}, {"SecurityOptions": None}, {"SecurityOptions": ["name=userns"]}):
        assert not is_rootless(info)


@pytest.mark.parametrize(
    ("info", "more", "found"),
    [
        ({**DOCKER_20, "ProductLicense": "Apache-2.0"}, {}, "podman"),
        ({"DockerRootDir": "/var/lib/containers/storage"}, {}, "podman"),
        ({"host": {}, "store": {}, "version": {}}, {}, "podman"),
        (DOCKER_20, {"endpoint": "unix:///run/podman/podman.sock"}, "podman"),
        ({**DOCKER_20, "OperatingSystem": "Docker Desktop"}, {}, "Docker Desktop"),
        (DOCKER_20, {"endpoint": "unix:///home/u/.docker/desktop/docker.sock"}, "Docker Desktop"),
        ({"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, {}, "docker from snap"),
        (DOCKER_20, {"program": "/snap/bin/docker"}, "docker from snap"),
        (DOCKER_20, {"endpoint": "unix:///var/run/docker.sock", "program": "/usr/bin/docker"}, None),
        ({}, {}, None),
    ],
)
def test_product_is_named(info: dict[str, Any], more: dict[str, str], found: str | None) -> None:
    assert product(info, **more) == found


def test_malformed_answer_is_empty() -> None:
    for text in ("", "[]", "nonsense", '"x"', 100_000 * "["):
        assert parse(text) == {}
    assert parse('{"a": 1}') == {"a": 1}
