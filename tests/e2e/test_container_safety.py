"""A real vLLM in the container that every docker plan gets: as a user that the image does not know, without a
capability, on a read-only root; and what its server refuses."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.cli.host_plan import plan_for
from deckard_deploy.cli.prepare import have_engine, have_weights, stored_release
from deckard_deploy.cli.site import open_site
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.shell import render_run
from deckard_deploy.running.deploy import bring_up, take_down
from deckard_deploy.running.layout import StateDir
from tests.e2e.conftest import docker

pytestmark = pytest.mark.docker
NAME, STRANGER = "confined", 1234  # no such user in the image
CANARY = "canary-token-q7Wz9"
TRY_TO_WRITE = """
import os, sys
read = [open(os.path.join(sys.argv[1], name), "rb").read(1) for name in sorted(os.listdir(sys.argv[1]))]
for folder in sys.argv[2:]:
    with open(os.path.join(folder, "probe"), "w") as file:
        file.write("x")
    os.remove(os.path.join(folder, "probe"))
print(len(read), "files read, caches written as", os.getuid())
"""


def owned_by(folder: Path, uid: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)


@pytest.fixture(scope="module")
def plan(image: str, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> LaunchPlan:
    directory = StateDir(tmp_path_factory.mktemp("confined"))
    deployment = Deployment(name=NAME, engine="vllm-0.19.1-cpu-docker", image=image, publish=Publish(port=free_port()))
    resolved = resolve(deployment, profile=library.profile("cpu"))
    have_weights(resolved, directory, print)
    # No gateway: it would answer in the server's stead.
    return plan_for(resolved, directory).model_copy(update={"user": f"{STRANGER}:{STRANGER}", "gateway": None})


@pytest.fixture(scope="module")
def base_url(plan: LaunchPlan) -> Iterator[str]:
    directory = StateDir(Path(plan.mounts[0].source).parents[1])
    directory.create(NAME)
    os.environ["HF_TOKEN"] = CANARY
    with open_site(directory, NAME, print, also="docker") as site:
        have_engine(plan, directory, site.runtimes["docker"], print)
        owned_by(directory.cache, STRANGER)
        owned_by(directory.models, STRANGER)
        bring_up(site, *stored_release(plan, site.releases))
        yield plan.base_url
        take_down(site)
    del os.environ["HF_TOKEN"]


def test_docker_knows_no_secret_of_the_caller(base_url: str) -> None:
    assert base_url
    shown = docker("inspect", f"deckard-{NAME}") + docker("logs", f"deckard-{NAME}")
    assert "deckard.launch" in shown  # the control: this is where labels and variables stand
    assert CANARY not in shown


def inspected(what: str) -> dict[str, object]:
    return dict(json.loads(docker("inspect", "--format", f"{{{{json .{what}}}}}", f"deckard-{NAME}")))


def inside(*command: str) -> str:
    return docker("exec", f"deckard-{NAME}", *command)


def test_docker_confines_it(base_url: str) -> None:
    assert base_url
    host = inspected("HostConfig")
    assert (host["Privileged"], host["CapAdd"], host["CapDrop"]) == (False, None, ["ALL"])
    assert (host["ReadonlyRootfs"], host["PidsLimit"]) == (True, 8192)
    assert host["NetworkMode"] not in ("host", "none")
    assert (host["IpcMode"], host["PidMode"], host["UTSMode"]) == ("private", "", "")
    assert host["SecurityOpt"] == ["no-new-privileges:true"]


@pytest.mark.usefixtures("base_url")
def test_the_server_has_no_right_beyond_its_users() -> None:
    status = dict(line.split(":", 1) for line in inside("cat", "/proc/1/status").splitlines() if ":" in line)
    assert status["Uid"].split() == [str(STRANGER)] * 4
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"


@pytest.mark.usefixtures("base_url")
def test_nothing_is_written_beside_the_named_places(plan: LaunchPlan) -> None:
    changed = docker("diff", f"deckard-{NAME}").splitlines()
    made_by_docker = ("/home", "/models", "/usr", "/usr/sbin", "/usr/sbin/docker-init", "/sbin/docker-init", "/sbin")
    allowed = (*made_by_docker, *(mount.target for mount in (*plan.mounts, *plan.patches)), *plan.scratch)
    assert [line for line in changed if line[2:] not in allowed] == []
    caches = [path for mount in plan.mounts if not mount.read_only for path in Path(mount.source).rglob("*")]
    assert caches
    assert {path.stat().st_uid for path in caches} == {STRANGER}


def asked(base_url: str, **changes: object) -> requests.Response:
    body = {"model": "tiny-gemma4", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, **changes}
    return requests.post(f"{base_url}/chat/completions", json=body, timeout=60)


def test_media_of_no_host_and_no_file_is_fetched(base_url: str) -> None:
    for url, words in (("http://127.0.0.1:1/x.png", "allowed domains"), ("file:///etc/passwd", "local files")):
        image = {"type": "image_url", "image_url": {"url": url}}
        refused = asked(base_url, messages=[{"role": "user", "content": [image]}])
        assert refused.status_code >= 400
        assert words in refused.text


def test_sixty_five_answers_are_too_many(base_url: str) -> None:
    assert asked(base_url, n=2, temperature=1.0).status_code == 200
    refused = asked(base_url, n=65, temperature=1.0)
    assert refused.status_code == 400
    assert "64" in refused.text


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/redoc", "/server_info", "/collective_rpc", "/sleep", "/start_profile"]
)
def test_no_route_for_developers(base_url: str, path: str) -> None:
    root = base_url.removesuffix("/v1")
    assert {requests.request(method, root + path, timeout=10).status_code for method in ("GET", "POST")} <= {404, 405}


def test_no_page_of_a_browser_may_use_it(base_url: str) -> None:
    answer = requests.get(f"{base_url}/models", headers={"Origin": "http://evil.example"}, timeout=10)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("caches_are_open", [True, False])
def test_a_root_without_capabilities_needs_caches_that_are_open(plan: LaunchPlan, *, caches_are_open: bool) -> None:
    """As the official image runs. The closed caches are the control: `up` has to open them."""
    as_root = plan.model_copy(update={"user": None, "patches": ()})
    words = shlex.split(render_run(as_root).replace("\\\n", " "), comments=True)
    options = words[2 : words.index(str(plan.image))]
    for option in ("--detach", "--init"):
        options.remove(option)
    for option in ("--name", "--entrypoint", "--restart", "--publish"):
        at = options.index(option)
        del options[at : at + 2]
    weights, *caches = [mount.target for mount in plan.mounts]
    for mount in plan.mounts[1:]:
        Path(mount.source).mkdir(parents=True, exist_ok=True)
        os.chown(mount.source, STRANGER, STRANGER)
        Path(mount.source).chmod(0o1777 if caches_are_open else 0o755)
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        *options,
        "--entrypoint",
        "python3",
        str(plan.image),
        "-c",
        TRY_TO_WRITE,
    ]
    done = subprocess.run([*command, weights, *caches], capture_output=True, text=True, check=False)
    if caches_are_open:
        assert "caches written as 0" in done.stdout, done.stderr
    else:
        assert "PermissionError" in done.stderr
