"""A few rounds of tests/campaigns/concurrent_ups.py and tests/campaigns/cycles.py."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deckard_deploy.running.deploy import take_down
from tests.support import start_cycles
from tests.support.concurrent_ups import deploy_at_once
from tests.support.docker_deployment import (
    SHARED_NAME,
    DockerDeployment,
    docker,
    open_shared_project,
    proven,
    small_image,
)
from tests.support.ports import free_port

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", autouse=True)
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with small_image(tmp_path_factory.mktemp("busybox")):
        yield


def test_concurrent_ups_start_one_container(tmp_path: Path) -> None:
    project = DockerDeployment(tmp_path, SHARED_NAME)
    release, launch = project.stored(project.plan(port=free_port()))
    try:
        left = deploy_at_once(open_shared_project, tmp_path, release, launch, 8)
        assert sorted(one.code for one in left) == [0, *[8] * 7]
        mine = ("--filter", f"label=deckard.deployment={project.name}")
        assert len(docker("ps", "-aq", *mine).split()) == 1
    finally:
        take_down(project.context(proven))
    assert project.left() == []


@pytest.mark.parametrize("new_cycle", [start_cycles.of_docker, start_cycles.of_process])
def test_up_and_down_leave_nothing(
    new_cycle: Callable[[Path], start_cycles.Cycle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two, which load and rotate what is there once. While it is up there is more, which is the control."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    cycle = new_cycle(tmp_path)
    cycle.turn(2)
    before = cycle.count()
    cycle.up()
    runs = set(cycle.count().more_than(before))
    cycle.down()
    assert {"containers", "networks"} <= runs or "processes" in runs
    assert cycle.count().more_than(before) == {}


def test_leftovers_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cycle = start_cycles.of_process(tmp_path / "deployment")
    before = cycle.count()
    (cycle.state / "left").touch()
    with tempfile.NamedTemporaryFile(), subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE) as left:
        found = cycle.count().more_than(before)
        left.kill()
    assert found.keys() == {"state_files", "temporary_files", "descriptors", "processes"}
