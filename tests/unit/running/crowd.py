"""Many `up`s at once: what a test runs a few of and scripts/campaign_up.py many. As a program, it is one of them."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from deckard_deploy.errors import DeployError
from deckard_deploy.running.deploy import Site, bring_up
from deckard_deploy.running.lock import held
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from tests.unit.running.world import World, eventually

HOLD_S = 3.0


@dataclass(frozen=True)
class Left:
    """How one of them ended: exit code, seconds from its turn to its end, and what it said."""

    code: int
    took_s: float
    said: str


def crowd(world: World, folder: Path, count: int) -> list[Left]:
    """Let `count` processes bring the same plan up at the same moment."""
    release, launch = world.stored(world.plan())
    order = {"folder": str(folder), "release": release.plan_hash, "launch": launch.model_dump_json()}
    command = [sys.executable, "-m", "tests.unit.running.crowd", json.dumps(order)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    for one in started:  # each says that it is there
        assert one.stdout is not None
        assert one.stdout.readline() == "here\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    left = []
    for one in started:
        said, _ = one.communicate(timeout=120)
        took, _, message = said.partition(" ")
        left.append(Left(one.returncode, float(took), message.strip()))
    return left


def _main() -> int:
    order = json.loads(sys.argv[1])
    world = World(Path(order["folder"]))
    site = Site(releases=world.releases, runtimes={"process": world.runtime()}, follow=_follow, say=lambda _: None)
    release = Release(world.deployment.releases / order["release"])
    launch = world.launch(release.plan()).model_validate_json(order["launch"])
    print("here", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    try:
        with held(world.deployment, verb="up"):
            bring_up(site, release, launch)
            time.sleep(HOLD_S)
    except DeployError as error:
        print(time.monotonic() - began, error.message)
        return error.exit_code
    print(time.monotonic() - began, "up")
    return 0


def _follow(release: Release, _: Runtime) -> None:
    eventually(lambda: World.names_on(release.plan().port) is not None)


if __name__ == "__main__":
    sys.exit(_main())
