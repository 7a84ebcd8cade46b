"""Containers that fail while they start, followed as `up` does: what is said, and how often docker started them."""

import functools
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import StartFailedError
from deckard_deploy.running.deploy import bring_up
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.startup import readiness
from deckard_deploy.startup.follow import follow
from tests.e2e.docker_world import World, deployment_in
from tests.unit.running.world import free_port

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("busybox")]
STALLED_AFTER_S = 8.0  # longer than docker takes to start it three times
MODES = {
    "crash": ("engine", "it is made to fail"),
    "slow-crash": ("was restarted (restart 1)", "it is made to fail"),
    "end": ("exited with code 0", ""),
    "oom": ("engine", "the kernel killed it for memory"),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with deployment_in(tmp_path, "x" + secrets.token_hex(3)) as made:
        yield made


def followed(release: Release, runtime: Runtime) -> None:
    launch = release.recorded_launch()
    ask = functools.partial(readiness.probe, launch.base_url, launch_id=launch.launch_id, served_name="tiny")
    follow(runtime, ask, stalled_after_s=STALLED_AFTER_S, on_progress=lambda _: None)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_said_and_stopped(world: World, mode: str) -> None:
    release, launch = world.stored(world.plan(port=free_port(), FAKE_MODE=mode))
    compose = release.folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("    restart:", "    mem_limit: 20m\n    restart:"))
    with pytest.raises(StartFailedError) as caught:
        bring_up(world.site(followed), release, launch)
    said = caught.value.message + caught.value.hint
    assert "start failed in" in said
    for words in MODES[mode]:
        assert words in said, said
    assert "restart 3" not in said
    assert world.left() == []
