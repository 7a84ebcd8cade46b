"""Rounds of many `up`s at once: python -m tests.campaigns.concurrent_ups process|docker [ROUNDS] [AT_ONCE].

CI runs one round of eight processes and one of eight with docker.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from deckard_deploy.running.deploy import take_down
from tests.support import docker_deployment
from tests.support.concurrent_ups import Participant, deploy_at_once, open_fake_deployment
from tests.support.fake_deployment import FakeDeployment
from tests.support.ports import free_port


def of_processes(folder: Path, at_once: int) -> tuple[list[Participant], int]:
    """Return the ends of all participants, and the number of servers at that time."""
    fake = FakeDeployment(folder)
    try:
        release, launch = fake.stored(fake.plan())
        left = deploy_at_once(open_fake_deployment, folder, release, launch, at_once)
        return left, len(fake.processes()) // 2  # each has a worker
    finally:
        fake.end()


def of_docker(folder: Path, at_once: int) -> tuple[list[Participant], int]:
    """The same with a container."""
    project = docker_deployment.DockerDeployment(folder, docker_deployment.SHARED_NAME)
    try:
        release, launch = project.stored(project.plan(port=free_port()))
        left = deploy_at_once(docker_deployment.open_shared_project, folder, release, launch, at_once)
        mine = ("--filter", f"label=deckard.deployment={project.name}")
        return left, len(docker_deployment.docker("ps", "-q", *mine).split())
    finally:
        take_down(project.context(docker_deployment.proven))


def run(kind: str, rounds: int, at_once: int) -> None:
    one_round: Callable[[Path, int], tuple[list[Participant], int]] = (
        of_docker if kind == "docker" else of_processes
    )
    slowest, busiest, unnamed = 0.0, 0.0, 0
    with (
        tempfile.TemporaryDirectory() as name,
        docker_deployment.small_image(Path(name)) if kind == "docker" else nullcontext(),
    ):
        for number in range(rounds):
            folder = Path(name) / str(number)
            folder.mkdir()
            left, servers = one_round(folder, at_once)
            if sorted(one.code for one in left) != [0, *[8] * (at_once - 1)] or servers != 1:
                sys.exit(f"round {number + 1}: {servers} servers; {left}")
            refused = [one for one in left if one.code == 8]
            slowest = max(slowest, *(one.took_s for one in refused))
            busiest = max(busiest, *(one.worked_s for one in refused))
            unnamed += sum(" held by pid " not in one.said for one in refused)
            print(
                f"round {number + 1}: 1 server, {len(refused)} left with exit 8, slowest so far {slowest:.2f} s"
            )
    print(
        f"{rounds} rounds of {at_once}: slowest {slowest:.2f} s, of which {busiest:.3f} s of a processor at most; "
        f"{unnamed} could not name the holder"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["process", "docker"])
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    parser.add_argument("at_once", type=int, nargs="?", default=50)
    options = parser.parse_args()
    run(options.kind, options.rounds, options.at_once)


if __name__ == "__main__":  # the processes of a crowd import this file
    main()
