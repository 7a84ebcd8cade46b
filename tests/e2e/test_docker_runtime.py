"""The docker runtime against a real engine and real compose."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, NetworkError, StartFailedError
from deckard_deploy.planning.plan import BindMount, Gpus
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.running.deploy import decide, deploy, take_down
from deckard_deploy.running.docker import images
from deckard_deploy.running.runtime import MISSING, Observation
from tests.e2e.conftest import Tool
from tests.support.docker_deployment import (
    IMAGE,
    DockerDeployment,
    answers,
    debian,
    deployment_in,
    docker,
    proven,
)
from tests.support.ports import free_port, listens
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("busybox")]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(params=["plain"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DockerDeployment]:
    name = "x" + secrets.token_hex(3) + (".dot-ted" if request.param == "dotted" else "")
    with deployment_in(tmp_path, name) as deployment:
        yield deployment


@pytest.mark.parametrize("project", ["plain", "dotted"], indirect=True)
def test_deploy_observe_and_stop(project: DockerDeployment, port: int) -> None:
    release, launch = project.stored(project.plan(port=port))
    ready = deploy(project.context(proven), release, launch)
    seen = project.runtime().observe()
    assert (seen.state, seen.plan_hash, seen.launch_id) == ("running", release.plan_hash, launch.launch_id)
    assert (seen.exit_code, seen.restart_count, seen.oom_killed) == (None, 0, False)
    assert (
        seen.instance_id
        == ready.instance_id
        == docker("inspect", "--format", "{{.Id}}", f"deckard-{project.name}").strip()
    )
    assert seen.image_id == images.image_id(project.runtime().client, IMAGE)
    assert decide(release.plan_hash, seen, release.launch()).action == "nothing"
    assert any(line.startswith("$ docker compose --project-name deckard-x") for line in project.said)
    assert take_down(project.context(proven))
    assert project.left() == []
    assert project.runtime().observe() == MISSING
    assert not take_down(project.context(proven))


def test_arguments_arrive_as_planned(project: DockerDeployment, port: int) -> None:
    release = project.started(project.plan(port=port))
    arguments = docker("inspect", "--format", "{{json .Args}}", f"deckard-{project.name}")
    assert r"$HOME `id` '\"\n#" in arguments
    assert release.plan.launched(release.recorded_launch().launch_id).arguments[-1] == "$HOME `id` '\"\n#"


def test_log_is_complete_and_clean(project: DockerDeployment, port: int) -> None:
    project.started(project.plan(port=port, FAKE_LINES="3000"))
    runtime, lines = project.runtime(), list[str]()
    ends = {"line 2999", "red and �"}  # of stdout and of stderr, which docker copies each for itself
    eventually(lambda: bool(lines.extend(runtime.poll_lines()) or ends <= set(lines)))  # type: ignore[func-returns-value]
    numbers = [line for line in lines if line.startswith("line ")]
    assert numbers == [f"line {number}" for number in range(3000)]
    assert "line 2999" in project.runtime().tail(5)
    assert len(project.runtime().tail(5)) <= 5
    assert project.runtime().tail(0) == []


def test_log_is_followed_from_last_lines(project: DockerDeployment, port: int) -> None:
    project.started(project.plan(port=port, FAKE_LINES="300"))
    eventually(lambda: {"line 299", "red and �"} <= set(project.runtime().tail(400)))
    runtime, lines, expected = project.runtime(), list[str](), project.runtime().tail(5)
    eventually(lambda: bool(lines.extend(runtime.poll_lines(last=5)) or len(lines) >= 5))  # type: ignore[func-returns-value]
    assert lines == expected


def test_crash_loop_ends_with_log_of_all_starts(project: DockerDeployment, port: int) -> None:
    project.started(project.plan(port=port, FAKE_MODE="crash"))
    runtime, lines = project.runtime(), list[str]()

    def ended() -> Observation | None:
        lines.extend(runtime.poll_lines())
        seen = runtime.observe()
        return seen if seen.state == "exited" else None

    seen = eventually(ended)
    assert seen is not None
    assert (seen.exit_code, seen.restart_count, seen.oom_killed) == (3, 2, False)
    assert runtime.tail(99).count("RuntimeError: it is made to fail") == 3

    def all_three_came() -> bool:
        lines.extend(runtime.poll_lines())
        return lines.count("RuntimeError: it is made to fail") == 3

    eventually(all_three_came)
    runtime.stop()
    assert project.left() == []


def test_stop_keeps_network_in_use(project: DockerDeployment, port: int) -> None:
    project.started(project.plan(port=port))
    network, label = f"deckard-{project.name}_default", f"deckard.deployment={project.name}"
    other = docker(
        "run", "-d", "--init", "--label", label, "--network", network, IMAGE, "/bin/sleep", "600"
    ).strip()
    project.runtime().stop()
    assert project.left() == [network]
    project.started(project.plan(port=port))
    assert docker("exec", other, "/bin/busybox", "nslookup", "vllm").strip()
    docker("rm", "-f", other)
    project.runtime().stop()
    assert project.left() == []


def test_stop_kills_server_deaf_to_sigterm(project: DockerDeployment, port: int) -> None:
    project.started(project.plan(port=port, FAKE_MODE="deaf"))
    project.runtime().stop()
    assert project.left() == []


def test_failed_replacement_is_rolled_back(project: DockerDeployment, port: int) -> None:
    old, launch = project.stored(project.plan(port=port))
    deploy(project.context(proven), old, launch)
    new, broken = project.stored(project.plan(port=port, FAKE_MODE="crash"))
    with pytest.raises(StartFailedError, match=f"release {old.plan_hash} is running again"):
        deploy(project.context(proven), new, broken)
    seen = project.runtime().observe()
    assert (seen.plan_hash, seen.launch_id) == (old.plan_hash, old.recorded_launch().launch_id)
    assert project.releases.current() == old
    assert "it is made to fail" in new.text("failure.log")
    assert answers(port)


def test_rollback_ignores_unlaunched_compose_file(project: DockerDeployment, port: int) -> None:
    """`up` was killed after rendering and before anything else: compose.yaml is ahead of launch.json."""
    old, launch = project.stored(project.plan(port=port))
    deploy(project.context(proven), old, launch)
    _, never = project.stored(project.plan(port=port))
    new, broken = project.stored(project.plan(port=port, FAKE_MODE="crash"))
    with pytest.raises(StartFailedError, match="is running again"):
        deploy(project.context(proven), new, broken)
    assert project.runtime().observe().launch_id == old.recorded_launch().launch_id == never.launch_id


@pytest.mark.parametrize(
    ("changes", "words", "hint"),
    [
        ({"image": "deckard-deploy-test/absent:1"}, "No such image", "docker pull"),
        ({"gpus": Gpus(count="all")}, "could not select device driver", "nvidia-container-toolkit"),
        (
            {"mounts": (BindMount(source="/absent/weights", target="/models/tiny"),)},
            "/absent/weights",
            "deckard-deploy up",
        ),
        ({"address": "192.0.2.1"}, "192.0.2.1", "ip -brief address"),
    ],
)
def test_docker_refusal_has_hint(
    project: DockerDeployment, port: int, changes: dict[str, object], words: str, hint: str
) -> None:
    release, launch = project.stored(project.plan(port=port, changes=changes))
    with pytest.raises(EnvironmentUnfitError) as caught:
        deploy(project.context(proven), release, launch)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    assert project.left() == []
    assert not Path("/absent").exists()


def test_taken_port_starts_no_container(project: DockerDeployment, port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(EnvironmentUnfitError, match=f"pid {os.getpid()}"),
    ):
        project.started(project.plan(port=port))
    assert project.left() == []


def test_foreign_project_is_left_alone(project: DockerDeployment, port: int, tmp_path: Path) -> None:
    other = DockerDeployment(tmp_path / "other", project.name)
    other.started(project.plan(port=port))
    before = project.left()
    starts = lambda: project.started(project.plan(port=port))  # noqa: E731
    for act in (project.runtime().observe, starts, project.runtime().stop):
        with pytest.raises(EnvironmentUnfitError, match=f"was not started from {project.deployment.folder}"):
            act()
    assert project.left() == before
    other.runtime().stop()
    assert project.left() == []


def test_foreign_container_is_left_alone(project: DockerDeployment, port: int) -> None:
    name = f"deckard-{project.name}"
    docker(
        "run",
        "--detach",
        "--name",
        name,
        "--label",
        f"deckard.deployment={project.name}",
        IMAGE,
        "/bin/sleep",
        "600",
    )
    release, launch = project.stored(project.plan(port=port))
    with pytest.raises(EnvironmentUnfitError, match="is already in use by container") as caught:
        deploy(project.context(proven), release, launch)
    assert "docker rm -f" in caught.value.hint
    assert docker("inspect", "--format", "{{.State.Running}}", name) == "true\n"


def test_compose_file_of_other_plan_is_refused(project: DockerDeployment, port: int) -> None:
    release, launch = project.stored(project.plan(port=port))
    release.record(launch)
    other = render_compose(project.plan(port=port, OTHER="1"), launch_id=launch.launch_id)
    (release.folder / "compose.yaml").write_text(other)
    with pytest.raises(IntegrityError, match=f"not {release.plan_hash}"):
        project.runtime().start(release)


def test_compose_variables_of_caller_are_ignored(project: DockerDeployment, port: int) -> None:
    project.environment |= {
        "COMPOSE_PROJECT_NAME": "other",
        "COMPOSE_FILE": "/etc/hostname",
        "COMPOSE_PROFILES": "x",
    }
    project.started(project.plan(port=port))
    assert project.runtime().observe().state == "running"
    project.runtime().stop()
    assert project.left() == []


def test_removed_container_is_missing(project: DockerDeployment, port: int) -> None:
    project.started(project.plan(port=port))
    runtime = project.runtime()
    runtime.poll_lines()
    docker("rm", "-f", f"deckard-{project.name}")
    assert runtime.observe() == MISSING
    assert runtime.tail(3) == []
    runtime.stop()
    assert project.left() == []


UP = """
import sys
from pathlib import Path
from tests.support.docker_deployment import DockerDeployment, proven
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import deploy
project = DockerDeployment(Path(sys.argv[1]), sys.argv[2])
deploy(project.context(proven), *project.stored(LaunchPlan.model_validate_json(sys.argv[3])))
"""


@pytest.mark.parametrize("after_s", [0.6, 0.9, 1.1, 1.3, 1.6, 2.0])
def test_up_after_killed_up_leaves_one_container(
    project: DockerDeployment, port: int, tmp_path: Path, after_s: float
):
    plan = project.plan(port=port)
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", UP, str(tmp_path), project.name, plan.model_dump_json()]
    with subprocess.Popen(arguments, cwd=root, start_new_session=True, stderr=subprocess.DEVNULL) as victim:
        time.sleep(after_s)
        os.killpg(victim.pid, signal.SIGKILL)  # compose with it
    release, launch = project.stored(plan)
    ready = deploy(project.context(proven), release, launch)
    assert sorted(project.left()) == sorted([f"deckard-{project.name}", f"deckard-{project.name}_default"])
    assert project.runtime().observe().launch_id == ready.launch_id
    assert answers(port)


@pytest.fixture
def registry(tmp_path: Path, port: int) -> Iterator[str]:
    program = debian("docker-registry", tmp_path) / "usr" / "bin" / "docker-registry"
    settings = tmp_path / "registry.yml"
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/r}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with subprocess.Popen(
        [program, "serve", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        eventually(lambda: listens(port))
        yield f"127.0.0.1:{port}"
        server.kill()


def test_pull_by_digest_reports_progress(project: DockerDeployment, registry: str) -> None:
    docker("tag", IMAGE, f"{registry}/tiny:1")
    docker("push", f"{registry}/tiny:1")
    digest = docker("inspect", "--format", "{{index .RepoDigests 0}}", f"{registry}/tiny:1").strip()
    docker("rmi", "-f", IMAGE, f"{registry}/tiny:1", digest)
    engine, seen = project.runtime().client, list[tuple[int, int]]()

    def on_bytes(done: int, total: int) -> None:
        seen.append((done, total))

    try:
        assert images.image_id(engine, digest) is None
        pulled = images.pull(
            engine, digest, platform=None, on_bytes=lambda done, total: seen.append((done, total))
        )
        assert pulled == images.image_id(engine, digest)
        assert seen[-1][0] == seen[-1][1] > 100_000
        with pytest.raises(NetworkError, match="cannot be pulled"):
            images.pull(engine, f"{registry}/absent:1", platform=None, on_bytes=on_bytes)
    finally:
        docker("tag", images.pull(engine, digest, platform=None, on_bytes=on_bytes), IMAGE)
        docker("rmi", digest)


def test_unreachable_registry_is_network_error(project: DockerDeployment, port: int) -> None:
    with pytest.raises(NetworkError, match="cannot be pulled"):
        images.pull(project.runtime().client, f"127.0.0.1:{port}/x:1", platform=None, on_bytes=print)


def test_image_of_no_registry_is_not_pulled(tool: Tool) -> None:
    """The rehearsal's image, which the catalog names and nobody has built under that name."""
    choice = ("--profile", "cpu", "--engine", "vllm-0.19.1-cpu-docker", "--name", "unbuilt")
    refused = tool("up", *choice, "--port", str(free_port()), check=False)
    assert refused.returncode == 3
    assert "deckard/vllm-cpu:0.19.1 is not here, and no registry has it" in refused.stderr
    assert "tests/e2e/image/build.sh" in refused.stderr
    assert "pull" not in refused.stderr
