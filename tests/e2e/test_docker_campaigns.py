"""What scripts/campaign_up.py and scripts/campaign_cycles.py do many times, a few times."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.running.deploy import take_down
from tests.e2e.docker_world import CROWD, IMAGE, World, docker, make_image, proven, site_of_a_crowd
from tests.unit.running.crowd import crowd
from tests.unit.running.world import free_port

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", autouse=True)
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    make_image(tmp_path_factory.mktemp("busybox"))
    yield
    subprocess.run(["docker", "rmi", "-f", IMAGE], check=True, capture_output=True)


def test_of_many_ups_one_starts_a_container(tmp_path: Path) -> None:
    world = World(tmp_path, CROWD)
    release, launch = world.stored(world.plan(port=free_port()))
    try:
        left = crowd(site_of_a_crowd, tmp_path, release, launch, 8)
        assert sorted(one.code for one in left) == [0, *[8] * 7]
        mine = ("--filter", f"label=deckard.deployment={world.name}")
        assert len(docker("ps", "-aq", *mine).split()) == 1
    finally:
        take_down(world.site(proven))
    assert world.left() == []
