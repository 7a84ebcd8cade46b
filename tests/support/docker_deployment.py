"""A docker deployment with a small server in it: what the tests of the docker runtime, and their victims, share."""

import io
import os
import secrets
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deckard_deploy.catalog.specs import Container
from deckard_deploy.errors import StartFailedError
from deckard_deploy.planning.plan import BindMount, LaunchPlan
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.running.deploy import DeploymentContext
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Launch, Release, Releases
from deckard_deploy.running.runtime import Runtime
from tests.support.waiting import eventually

SHARED_NAME = "crowd"  # the deployment that many bring up at once
# Another name where something else that uses and removes it runs at the same time.
IMAGE = os.environ.get("DECKARD_TEST_IMAGE", "deckard-deploy-test/busybox:local")
SERVE = """#!/bin/sh
echo "started as ${FAKE_MODE:-serve} with $*"
i=0; while [ $i -lt ${FAKE_LINES:-0} ]; do echo "line $i"; i=$((i+1)); done
printf '\\033[31mred\\033[0m and \\377\\n' >&2
case "$FAKE_MODE" in
  crash) echo "RuntimeError: it is made to fail" >&2; exit 3 ;;
  slow-crash) sleep "${FAKE_SLEEP:-1}"; echo "RuntimeError: it is made to fail" >&2; exit 4 ;;
  end) exit 0 ;;
  oom) exec /bin/busybox dd if=/dev/zero of=/dev/null bs=64M count=1 ;;
  deaf) trap "" TERM; while :; do sleep 1; done ;;
esac
exec httpd -f -p 8000 -h /www
"""


def debian(package: str, folder: Path) -> Path:
    """A Debian package's files, unpacked under `folder`."""
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, capture_output=True)
    subprocess.run(["dpkg-deb", "-x", next(folder.glob(f"{package}_*.deb")), folder / package], check=True)
    return folder / package


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o755
    tar.addfile(info, io.BytesIO(content))


@contextmanager
def small_image(folder: Path) -> Iterator[None]:
    """The image, as long as it is needed."""
    make_image(folder)
    try:
        yield
    finally:
        docker("rmi", "-f", IMAGE)


def make_image(folder: Path) -> None:
    """Import the image from Debian's static busybox, 2 MB; no registry is asked."""
    busybox = debian("busybox-static", folder) / "bin" / "busybox"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        add_file(tar, "bin/busybox", busybox.read_bytes())
        add_file(tar, "serve", SERVE.encode())
        add_file(tar, "www/index.html", b"here")
        add_file(tar, "www/health", b"")
        add_file(tar, "nonce", os.urandom(16))  # else a pull finds an earlier run's layer and shows nothing
        for name in ("sh", "httpd", "sleep", "printf"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    subprocess.run(
        ["docker", "import", "-", IMAGE], input=archive.getvalue(), check=True, capture_output=True
    )


class DockerDeployment:
    """One docker deployment in a state directory of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.said: list[str] = []
        self.deployment = StateDir(folder / "state").create(name)
        self.releases = Releases(self.deployment)
        self.environment = dict(os.environ)
        self.runtimes: list[DockerRuntime] = []
        self.weights = BindMount(source=str(folder), target="/models/tiny")

    def runtime(self) -> DockerRuntime:
        self.runtimes.append(
            DockerRuntime(self.deployment, environment=self.environment, say=self.said.append)
        )
        return self.runtimes[-1]

    def plan(self, *, port: int, changes: dict[str, object] | None = None, **environment: str) -> LaunchPlan:
        plan = LaunchPlan(
            deployment=self.name, profile="cpu", model="tiny", engine="busybox", vllm_version="0.19.1",
            runtime="docker", image=IMAGE, platform=None, entrypoint=("/serve",),
            arguments=("/models/tiny", "--served-model-name", "tiny", "--note", "$HOME `id` '\"\n#"),
            environment={"VLLM_X": "1", **environment}, mounts=(self.weights,), gpus=None,
            container=Container(stop_grace_period_s=1),
            container_name=f"deckard-{self.name}", healthcheck=None, served_name="tiny",
            address="127.0.0.1", port=port, container_port=8000, startup_timeout_s=60, scratch=("/scratch",),
        )  # fmt: skip
        return plan.model_copy(update=changes or {})

    def stored(self, plan: LaunchPlan) -> tuple[Release, Launch]:
        launch_id = f"deckard-launch-{secrets.token_hex(6)}"
        compose = render_compose(plan, launch_id=launch_id)
        release = self.releases.store(
            plan.hash, {"plan.json": plan.model_dump_json(), "compose.yaml": compose}
        )
        launch = Launch(
            launch_id=launch_id,
            started_at="2026-01-01",
            state="starting",
            runtime="docker",
            base_url=plan.base_url,
        )
        return release.load(), launch

    def started(self, plan: LaunchPlan) -> Release:
        release, launch = self.stored(plan)
        release.record(launch)
        self.runtime().start(release)
        return release

    def context(self, follow: Callable[[Release, Runtime], None]) -> DeploymentContext:
        return DeploymentContext(
            releases=self.releases, runtimes={"docker": self.runtime()}, follow=follow, say=self.said.append
        )

    def left(self) -> list[str]:
        """Names of all containers and networks of the project."""
        project = f"label=com.docker.compose.project=deckard-{self.name.replace('.', '_')}"
        asked = (["ps", "-a", "--format", "{{.Names}}"], ["network", "ls", "--format", "{{.Name}}"])
        return [name for words in asked for name in docker(*words, "--filter", project).split()]


@contextmanager
def deployment_in(folder: Path, name: str) -> Iterator[DockerDeployment]:
    """Yield a deployment; remove its containers and networks afterwards."""
    deployment = DockerDeployment(folder, name)
    yield deployment
    for runtime in deployment.runtimes:
        runtime.close()
    for container in docker("ps", "-aq", "--filter", f"label=deckard.deployment={name}").split():
        docker("rm", "-f", container)
    for network in deployment.left():
        docker("network", "rm", network)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
            return bool(answer.read() == b"here")
    except OSError:
        return False


def proven(release: Release, runtime: Runtime) -> None:
    def settled() -> bool:
        if runtime.observe().state in ("exited", "restarting"):
            raise StartFailedError("the engine stopped")
        return answers(release.plan.port)

    eventually(settled)


def open_shared_project(folder: Path) -> DeploymentContext:
    """The deployment in the folder, as one of the crowd sees it."""
    return DockerDeployment(folder, SHARED_NAME).context(proven)
