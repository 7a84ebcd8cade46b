"""Replicas in real containers, planned as `up` plans them: the real nginx, and a small server in the engine's image."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deckard_deploy.operations import replicas
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.options import Choice, Selection
from deckard_deploy.operations.plan import GroupPlan, plan_group
from deckard_deploy.planning.plan import BindMount, LaunchPlan
from tests.support.docker_deployment import docker
from tests.support.fake_group import FakeGroup
from tests.support.ports import free_port

STUB_IMAGE = "deckard-deploy-test/stub-vllm:local"
NAME = "dockbox"
HEARD = "/heard"
STUB = """
FROM {image}
USER root
COPY vllm /usr/local/bin/vllm
"""


@contextmanager
def stub_image(engine_image: str, folder: Path) -> Iterator[str]:
    """The engine's image with a small server in the place of `vllm`, as long as it is needed."""
    (folder / "vllm").write_text((Path(__file__).parent / "fake_server.py").read_text())
    (folder / "vllm").chmod(0o755)
    (folder / "Dockerfile").write_text(STUB.format(image=engine_image))
    docker("build", "--quiet", "--tag", STUB_IMAGE, str(folder))
    yield STUB_IMAGE
    docker("rmi", "--force", STUB_IMAGE)


class DockerGroup(FakeGroup):
    """A group of containers in a state directory of its own."""

    name = NAME

    def __init__(
        self, folder: Path, size: int, *, image: str, gateway_image: str, delay_s: float = 0.05
    ) -> None:
        super().__init__(folder, size, delay_s=delay_s)
        self.heard_file = folder / "heard" / "texts"
        self.heard_file.parent.mkdir()
        settings = (
            f"name={NAME}", f"publish.port={free_port()}", "engine=vllm-0.19.1-cpu-docker", f"image={image}",
            f"gateway_image={gateway_image}", f"replicas={size}", "drafter=none",
        )  # fmt: skip
        self.resolved = resolve_choice(Choice(profile="cpu", settings=settings), self.report, self.state)
        self._first = plan_group(self.resolved, self.state)

    def planned(self, *, size: int | None = None, **environment: str) -> GroupPlan:
        variables = {"FAKE_HEARD": f"{HEARD}/texts", "FAKE_DELAY_S": str(self.delay_s), **environment}
        planned = self._first
        if size:
            planned = plan_group(replace(self.resolved, replicas=size), self.state)
        asked = json.dumps(variables)
        members = [
            one._replace(plan=self._stubbed(one.plan, variables), resolved=replace(one.resolved, asked=asked))
            for one in planned.replicas
        ]
        return planned._replace(replicas=tuple(members))

    def _stubbed(self, plan: LaunchPlan, variables: dict[str, str]) -> LaunchPlan:
        """Return the plan without the filter, which a small server does not load, and with a folder for its notes."""
        heard = BindMount(source=str(self.heard_file.parent), target=HEARD, read_only=False)
        changes = {
            "request_filter": None,
            "environment": {**plan.environment, **variables},
            "mounts": (*plan.mounts, heard),
            "container": plan.container.model_copy(update={"stop_grace_period_s": 5}),
            "startup_timeout_s": 60,
        }
        return plan.model_copy(update=changes)

    def container(self, number: int) -> str:
        """Return the id of a replica's engine."""
        mine = ("--filter", f"label=deckard.deployment={NAME}-{number}", "--filter", "label=deckard.launch")
        return docker("ps", "--all", "--quiet", "--no-trunc", *mine).strip()

    def engine_pid(self, number: int) -> int:
        """Return the engine's process on this host: the child of docker's init."""
        init = docker("inspect", "--format", "{{.State.Pid}}", self.container(number)).strip()
        (child, *_) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        return int(child)

    def end(self) -> None:
        if self.state.with_replicas():
            replicas.down(Selection(self.state.root, NAME), self.report, purge=True)
        super().end()


def left() -> list[str]:
    """Return the names of all containers and networks of the group."""
    found = []
    for words in (["ps", "-a", "--format", "{{.Names}}"], ["network", "ls", "--format", "{{.Name}}"]):
        found += [name for name in docker(*words).split() if NAME in name]
    return found
