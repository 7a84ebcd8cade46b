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
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DockerDeployment]:
    name = "x" + secrets.token_hex(3) + (".dot-ted" if request.param == "dotted" else "")
    with deployment_in(tmp_path, name) as made:
        yield made


@pytest.mark.parametrize("world", ["plain", "dotted"], indirect=True)
def test_deploy_observe_and_stop(world: DockerDeployment, port: int) -> None:
    release, launch = world.stored(world.plan(port=port))
    ready = deploy(world.site(proven), release, launch)
    seen = world.runtime().observe()
    assert (seen.state, seen.plan_hash, seen.launch_id) == ("running", release.plan_hash, launch.launch_id)
    assert (seen.exit_code, seen.restart_count, seen.oom_killed) == (None, 0, False)
    assert (
        seen.instance_id
        == ready.instance_id
        == docker("inspect", "--format", "{{.Id}}", f"deckard-{world.name}").strip()
    )
    assert seen.image_id == images.image_id(world.runtime().client, IMAGE)
    assert decide(release.plan_hash, seen, release.launch()).action == "nothing"
    assert any(line.startswith("$ docker compose --project-name deckard-x") for line in world.said)
    assert take_down(world.site(proven))
    assert world.left() == []
    assert world.runtime().observe() == MISSING
    assert not take_down(world.site(proven))


def test_arguments_arrive_as_planned(world: DockerDeployment, port: int) -> None:
    release = world.started(world.plan(port=port))
    arguments = docker("inspect", "--format", "{{json .Args}}", f"deckard-{world.name}")
    assert r"$HOME `id` '\"\n#" in arguments
    assert release.plan().launched(release.recorded_launch().launch_id).arguments[-1] == "$HOME `id` '\"\n#"


def test_log_is_complete_and_clean(world: DockerDeployment, port: int) -> None:
    world.started(world.plan(port=port, FAKE_LINES="3000"))
    runtime, lines = world.runtime(), list[str]()
    ends = {"line 2999", "red and �"}  # of stdout and of stderr, which docker copies each for itself
    eventually(lambda: bool(lines.extend(runtime.poll_lines()) or ends <= set(lines)))  # type: ignore[func-returns-value]
    numbers = [line for line in lines if line.startswith("line ")]
    assert numbers == [f"line {number}" for number in range(3000)]
    assert "line 2999" in world.runtime().tail(5)
    assert len(world.runtime().tail(5)) <= 5
    assert world.runtime().tail(0) == []


def test_log_is_followed_from_last_lines(world: DockerDeployment, port: int) -> None:
    world.started(world.plan(port=port, FAKE_LINES="300"))
    eventually(lambda: {"line 299", "red and �"} <= set(world.runtime().tail(400)))
    runtime, lines, expected = world.runtime(), list[str](), world.runtime().tail(5)
    eventually(lambda: bool(lines.extend(runtime.poll_lines(last=5)) or len(lines) >= 5))  # type: ignore[func-returns-value]
    assert lines == expected


def test_crash_loop_ends_with_log_of_all_starts(world: DockerDeployment, port: int) -> None:
    world.started(world.plan(port=port, FAKE_MODE="crash"))
    runtime, lines = world.runtime(), list[str]()

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
    assert world.left() == []


def test_stop_keeps_network_in_use(world: DockerDeployment, port: int) -> None:
    world.started(world.plan(port=port))
    network, label = f"deckard-{world.name}_default", f"deckard.deployment={world.name}"
    other = docker(
        "run", "-d", "--init", "--label", label, "--network", network, IMAGE, "/bin/sleep", "600"
    ).strip()
    world.runtime().stop()
    assert world.left() == [network]
    world.started(world.plan(port=port))
    assert docker("exec", other, "/bin/busybox", "nslookup", "vllm").strip()
    docker("rm", "-f", other)
    world.runtime().stop()
    assert world.left() == []


def test_stop_kills_server_deaf_to_sigterm(world: DockerDeployment, port: int) -> None:
    world.started(world.plan(port=port, FAKE_MODE="deaf"))
    world.runtime().stop()
    assert world.left() == []


def test_failed_replacement_is_rolled_back(world: DockerDeployment, port: int) -> None:
    old, launch = world.stored(world.plan(port=port))
    deploy(world.site(proven), old, launch)
    new, broken = world.stored(world.plan(port=port, FAKE_MODE="crash"))
    with pytest.raises(StartFailedError, match=f"release {old.plan_hash}, which ran before, is back"):
        deploy(world.site(proven), new, broken)
    seen = world.runtime().observe()
    assert (seen.plan_hash, seen.launch_id) == (old.plan_hash, old.recorded_launch().launch_id)
    assert world.releases.current() == old
    assert "it is made to fail" in new.text("failure.log")
    assert answers(port)


def test_rollback_ignores_unlaunched_compose_file(world: DockerDeployment, port: int) -> None:
    """`up` was killed after rendering and before anything else: compose.yaml is ahead of launch.json."""
    old, launch = world.stored(world.plan(port=port))
    deploy(world.site(proven), old, launch)
    _, never = world.stored(world.plan(port=port))
    new, broken = world.stored(world.plan(port=port, FAKE_MODE="crash"))
    with pytest.raises(StartFailedError, match="is back"):
        deploy(world.site(proven), new, broken)
    assert world.runtime().observe().launch_id == old.recorded_launch().launch_id == never.launch_id


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
        ({"address": "192.0.2.1"}, "192.0.2.1", "--port"),
    ],
)
def test_docker_refusal_has_hint(
    world: DockerDeployment, port: int, changes: dict[str, object], words: str, hint: str
) -> None:
    release, launch = world.stored(world.plan(port=port, changes=changes))
    with pytest.raises(EnvironmentUnfitError) as caught:
        deploy(world.site(proven), release, launch)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    assert world.left() == []
    assert not Path("/absent").exists()


def test_taken_port_starts_no_container(world: DockerDeployment, port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(EnvironmentUnfitError, match=f"pid {os.getpid()}"),
    ):
        world.started(world.plan(port=port))
    assert world.left() == []


def test_foreign_project_is_left_alone(world: DockerDeployment, port: int, tmp_path: Path) -> None:
    other = DockerDeployment(tmp_path / "other", world.name)
    other.started(world.plan(port=port))
    before = world.left()
    assert world.runtime().observe() == MISSING
    for act in (lambda: world.started(world.plan(port=port)), world.runtime().stop):
        with pytest.raises(EnvironmentUnfitError, match=f"was not started from {world.deployment.folder}"):
            act()
    assert world.left() == before
    other.runtime().stop()
    assert world.left() == []


def test_foreign_container_is_left_alone(world: DockerDeployment, port: int) -> None:
    name = f"deckard-{world.name}"
    docker(
        "run",
        "--detach",
        "--name",
        name,
        "--label",
        f"deckard.deployment={world.name}",
        IMAGE,
        "/bin/sleep",
        "600",
    )
    release, launch = world.stored(world.plan(port=port))
    with pytest.raises(EnvironmentUnfitError, match="is already in use by container") as caught:
        deploy(world.site(proven), release, launch)
    assert "docker rm -f" in caught.value.hint
    assert docker("inspect", "--format", "{{.State.Running}}", name) == "true\n"


def test_compose_file_of_other_plan_is_refused(world: DockerDeployment, port: int) -> None:
    release, launch = world.stored(world.plan(port=port))
    release.record(launch)
    other = render_compose(world.plan(port=port, OTHER="1"), launch_id=launch.launch_id)
    (release.folder / "compose.yaml").write_text(other)
    with pytest.raises(IntegrityError, match=f"not {release.plan_hash}"):
        world.runtime().start(release)


def test_compose_variables_of_caller_are_ignored(world: DockerDeployment, port: int) -> None:
    world.environment |= {
        "COMPOSE_PROJECT_NAME": "other",
        "COMPOSE_FILE": "/etc/hostname",
        "COMPOSE_PROFILES": "x",
    }
    world.started(world.plan(port=port))
    assert world.runtime().observe().state == "running"
    world.runtime().stop()
    assert world.left() == []


def test_removed_container_is_missing(world: DockerDeployment, port: int) -> None:
    world.started(world.plan(port=port))
    runtime = world.runtime()
    runtime.poll_lines()
    docker("rm", "-f", f"deckard-{world.name}")
    assert runtime.observe() == MISSING
    assert runtime.tail(3) == []
    runtime.stop()
    assert world.left() == []


UP = """
import sys
from pathlib import Path
from tests.support.docker_deployment import DockerDeployment, proven
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import deploy
world = DockerDeployment(Path(sys.argv[1]), sys.argv[2])
deploy(world.site(proven), *world.stored(LaunchPlan.model_validate_json(sys.argv[3])))
"""


@pytest.mark.parametrize("after_s", [0.6, 0.9, 1.1, 1.3, 1.6, 2.0])
def test_up_after_killed_up_leaves_one_container(
    world: DockerDeployment, port: int, tmp_path: Path, after_s: float
):
    plan = world.plan(port=port)
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", UP, str(tmp_path), world.name, plan.model_dump_json()]
    with subprocess.Popen(arguments, cwd=root, start_new_session=True, stderr=subprocess.DEVNULL) as victim:
        time.sleep(after_s)
        os.killpg(victim.pid, signal.SIGKILL)  # compose with it
    release, launch = world.stored(plan)
    ready = deploy(world.site(proven), release, launch)
    assert sorted(world.left()) == sorted([f"deckard-{world.name}", f"deckard-{world.name}_default"])
    assert world.runtime().observe().launch_id == ready.launch_id
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


def test_pull_by_digest_reports_progress(world: DockerDeployment, registry: str) -> None:
    docker("tag", IMAGE, f"{registry}/tiny:1")
    docker("push", f"{registry}/tiny:1")
    digest = docker("inspect", "--format", "{{index .RepoDigests 0}}", f"{registry}/tiny:1").strip()
    docker("rmi", "-f", IMAGE, f"{registry}/tiny:1", digest)
    engine, seen = world.runtime().client, list[tuple[int, int]]()

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


def test_unreachable_registry_is_network_error(world: DockerDeployment, port: int) -> None:
    with pytest.raises(NetworkError, match="cannot be pulled"):
        images.pull(world.runtime().client, f"127.0.0.1:{port}/x:1", platform=None, on_bytes=print)
