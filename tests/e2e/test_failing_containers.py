"""Containers that fail while they start, followed as `up` does: what is said, and how often docker started them."""

import functools
import os
import platform
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.doctor.collect import collect
from deckard_deploy.doctor.findings import Severity
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.judge import evaluate_rules
from deckard_deploy.doctor.target import Folders, Target
from deckard_deploy.errors import StartFailedError
from deckard_deploy.running.deploy import deploy
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.startup import readiness
from deckard_deploy.startup.follow import follow
from tests.support.docker_deployment import DockerDeployment, deployment_in
from tests.support.ports import free_port

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("busybox")]
STALLED_AFTER_S = 8.0  # longer than docker takes to start it three times
MODES = {
    "crash": ("engine", "it is made to fail"),
    "slow-crash": ("was restarted (restart ", "it is made to fail"),
    "end": ("exited with code 0", ""),
    "oom": ("engine", "the kernel killed it for memory"),
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DockerDeployment]:
    with deployment_in(tmp_path, "x" + secrets.token_hex(3)) as deployment:
        yield deployment


def followed(release: Release, runtime: Runtime) -> None:
    launch = release.recorded_launch()
    ask = functools.partial(readiness.probe, launch.base_url, launch_id=launch.launch_id, served_name="tiny")
    follow(runtime, ask, stalled_after_s=STALLED_AFTER_S, on_progress=lambda _: None)


@pytest.mark.parametrize("mode", MODES)
def test_failing_start_is_explained_and_stopped(project: DockerDeployment, mode: str) -> None:
    release, launch = project.stored(project.plan(port=free_port(), FAKE_MODE=mode))
    compose = release.folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("    restart:", "    mem_limit: 20m\n    restart:"))
    with pytest.raises(StartFailedError) as caught:
        deploy(project.context(followed), release, launch)
    said = caught.value.message + caught.value.hint
    assert "start failed in" in said
    for words in MODES[mode]:
        assert words in said, said
    assert "restart 3" not in said
    assert project.left() == []


@pytest.fixture
def foreign_image() -> Iterator[str]:
    """An image that says that it is for a machine which this is not."""
    other, name = (
        ("amd64" if platform.machine() == "aarch64" else "arm64"),
        "deckard-deploy-test/foreign:local",
    )
    building = ["docker", "build", "--quiet", "--platform", f"linux/{other}", "--tag", name, "-"]
    recipe = b"FROM scratch\nLABEL deckard.test=1\n"
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    subprocess.run(building, input=recipe, env=environment, capture_output=True, check=True)
    yield name
    subprocess.run(["docker", "rmi", name], capture_output=True, check=True)


def test_foreign_platform_image_is_refused(foreign_image: str) -> None:
    target = Target(folders=Folders(weights=Path("/"), caches=()), image=foreign_image)
    facts = collect(target, Host(dict(os.environ)), port_problem=lambda *_: None, quick=True)
    (found,) = (finding for finding in evaluate_rules(facts, target) if finding.rule == "image-platform")
    assert found.severity == Severity.FAIL
    assert f"{foreign_image} is for a" in found.what
