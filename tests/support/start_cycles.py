"""`up` and `down` again and again, and what is left: a few times in a test, many in tests/campaigns/cycles.py."""

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deckard_deploy.cli.main import run
from deckard_deploy.running.deploy import DeploymentContext, deploy, take_down
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.system.processes import ProcessIdentity
from tests.support import docker_deployment, fake_deployment
from tests.support.ports import free_port
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Count:
    """Numbers of things in docker, this process, its machine and the state directory."""

    containers: int
    networks: int
    volumes: int
    descriptors: int
    sockets: int
    threads: int
    processes: int
    temporary_files: int
    state_files: int
    state_bytes: int
    resident_bytes: int

    def more_than(self, before: "Count") -> dict[str, int]:
        """Return the excess over `before` by field; bytes are not counted."""
        mine, theirs = asdict(self), asdict(before)
        return {
            name: mine[name] - theirs[name]
            for name in mine
            if "bytes" not in name and mine[name] > theirs[name]
        }


class Cycle:
    """One deployment that goes up and down; `up` and `down` are of its kind."""

    def __init__(
        self, name: str, folder: Path, *, up: Callable[[], None], down: Callable[[], None],
        alive: Callable[[], list[ProcessIdentity]] = list,
    ) -> None:  # fmt: skip
        self.name, self.state, self.up, self.down, self._alive = name, folder / "state", up, down, alive

    def turn(self, times: int) -> None:
        for _ in range(times):
            self.up()
            self.down()

    def count(self) -> Count:
        me = psutil.Process()
        links = [_target(link) for link in Path("/proc/self/fd").iterdir()]
        files = [path.lstat() for path in self.state.rglob("*") if not path.is_dir()]
        project = ("--filter", f"label=com.docker.compose.project=deckard-{self.name}")
        return Count(
            containers=len(docker_deployment.docker("ps", "-aq", *project).split()),
            networks=len(docker_deployment.docker("network", "ls", "-q", *project).split()),
            volumes=len(docker_deployment.docker("volume", "ls", "-q").split()),
            descriptors=len(links),
            sockets=sum(link.startswith("socket:") for link in links),
            threads=threading.active_count(),
            processes=len(me.children(recursive=True)) + len(self._alive()),
            temporary_files=sum(len(names) for _, _, names in os.walk(tempfile.gettempdir())),
            state_files=len(files),
            state_bytes=sum(file.st_size for file in files),
            resident_bytes=me.memory_info().rss,
        )


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # that of the listing itself
        return ""


def of_docker(folder: Path) -> Cycle:
    """A small server in a real container, by the functions that `up` and `down` call."""
    project = docker_deployment.DockerDeployment(folder, "cycles")
    port = free_port()

    def up() -> None:
        deploy(project.context(docker_deployment.proven), *project.stored(project.plan(port=port)))
        _close(project)

    def down() -> None:
        take_down(project.context(docker_deployment.proven))
        _close(project)

    return Cycle(project.name, folder, up=up, down=down)


def _close(project: docker_deployment.DockerDeployment) -> None:
    for runtime in project.runtimes:
        runtime.close()
    project.runtimes.clear()


def of_process(folder: Path) -> Cycle:
    """The same with a process and its worker."""
    fake = fake_deployment.FakeDeployment(folder)
    runtime = fake.runtime()

    def follow(release: Release, _: Runtime) -> None:
        eventually(lambda: fake.names_on(release.plan.port) is not None)

    context = DeploymentContext(
        releases=fake.releases, runtimes={"process": runtime}, follow=follow, say=lambda _: None
    )

    def up() -> None:
        deploy(context, *fake.stored(fake.plan()))
        runtime.close()

    def down() -> None:
        take_down(context)
        runtime.close()

    return Cycle("box", folder, up=up, down=down, alive=lambda: [*fake.processes(), *fake.supervisors()])


def of_vllm(folder: Path, image: str, gateway_image: str) -> Cycle:
    """Real vLLM behind its gateway in real compose, by the command line, which runs in this process."""
    name = "vllm-cycles"
    home = ("--state-dir", str(folder / "state"))
    engine = (
        "--engine",
        "vllm-0.19.1-cpu-docker",
        "--image",
        image,
        "--set",
        f"gateway_image={gateway_image}",
    )
    wanted = ("--profile", "cpu", "--name", name, "--port", str(free_port()), *engine, *home)
    return Cycle(
        name, folder, up=lambda: _must("up", *wanted), down=lambda: _must("down", "--name", name, *home)
    )  # fmt: skip


def _must(*arguments: str) -> None:
    code = run(arguments)
    assert code == 0, f"{' '.join(arguments)}: exit {code}"
