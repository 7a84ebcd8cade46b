"""The whole road through real docker compose, with an image of the engine that was built here without a registry."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deckard_deploy.rehearsal.script import ANSWER_TEXT, PLAIN_TEXT, THOUGHT_TEXT, TOOL_ARGUMENTS, TOOL_NAME
from tests.e2e import clients
from tests.e2e.conftest import Tool, docker
from tests.support import planted_secrets
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("base_url")]
NAME = "dockroad"
GATEWAY = f"deckard-{NAME}-gateway"
BAD_FLAG = """
FROM {image}
USER root
RUN printf '#!/bin/sh\\nexec /usr/local/bin/vllm.real "$@" --linear-backend marlin\\n' > /tmp/vllm \\
 && vllm=$(command -v vllm) && mv "$vllm" /usr/local/bin/vllm.real && install -m 755 /tmp/vllm "$vllm"
"""


@pytest.fixture(scope="module")
def broken_image(image: str) -> Iterator[str]:
    tag = "deckard-deploy-test/bad-flag:local"
    docker("build", "--quiet", "--tag", tag, "-", stdin=BAD_FLAG.format(image=image))
    yield tag
    docker("image", "rm", tag)


@pytest.fixture(scope="module")
def arguments(image: str, gateway_image: str) -> list[str]:
    engine = [
        "--engine",
        "vllm-0.19.1-cpu-docker",
        "--image",
        image,
        "--set",
        f"gateway_image={gateway_image}",
    ]
    return ["up", "--profile", "cpu", "--name", NAME, "--port", str(free_port()), *engine]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user with fourteen secrets."""
    home = tmp_path_factory.mktemp("planted")
    planted_secrets.plant(home)
    return {**planted_secrets.variables(), "HOME": str(home)}


@pytest.fixture(scope="module")
def started(
    tool: Tool, arguments: list[str], planted: dict[str, str]
) -> Iterator[subprocess.CompletedProcess[str]]:
    yield tool(*arguments, **planted)
    tool("down", "--name", NAME, check=False)


@pytest.fixture(scope="module")
def base_url(started: subprocess.CompletedProcess[str]) -> str:
    return started.stdout.strip()


def containers(*more: str) -> list[str]:
    """The engine's: the gateway's has no label of a launch."""
    ours = ["--filter", f"label=deckard.deployment={NAME}", "--filter", "label=deckard.launch"]
    return docker("ps", "--all", "--quiet", *ours, *more).split()


def status(tool: Tool) -> dict[str, object]:
    return dict(json.loads(tool("status", "--name", NAME, "--json", check=False).stdout))


def test_chat_reasoning_and_tools(base_url: str) -> None:
    assert clients.plain(base_url) == (PLAIN_TEXT, PLAIN_TEXT)
    said = clients.reasoning(base_url)
    assert (said["whole_reasoning"].strip(), said["whole_content"].strip()) == (THOUGHT_TEXT, ANSWER_TEXT)
    assert (said["reasoning"].strip(), said["content"].strip()) == (THOUGHT_TEXT, ANSWER_TEXT)
    for name, call in clients.tool_call(base_url):
        assert (name, json.loads(call)) == (TOOL_NAME, TOOL_ARGUMENTS)


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_concurrent_chat(base_url: str, at_once: int) -> None:
    assert min(clients.concurrent_chat(base_url, at_once)) > 0


def test_bench_runs_inside_container(tool: Tool) -> None:
    counts = ("--concurrency", "2", "--runs", "2", "--requests", "1", "--output-tokens", "16", "--json")
    record = json.loads(tool("bench", "--name", NAME, *counts).stdout)
    assert [(run["completed"], run["failed"]) for run in record["runs"]] == [(2, 0)] * 2
    assert "http://127.0.0.1:" in " ".join(record["command"])


def published(container: str) -> list[str]:
    ports = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", container))
    return [binding["HostIp"] for found in ports.values() for binding in found or []]


def test_only_gateway_publishes_loopback_port(base_url: str) -> None:
    (engine,) = containers()
    assert published(engine) == []
    assert published(GATEWAY) == ["127.0.0.1"]
    assert base_url.startswith("http://127.0.0.1:")


def test_engine_network_is_internal() -> None:
    (engine,) = containers()
    networks = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", engine))
    assert list(networks) == [f"deckard-{NAME}_private"]
    assert docker("network", "inspect", "--format", "{{.Internal}}", f"deckard-{NAME}_private") == "true"


def test_engine_container_is_confined() -> None:
    (engine,) = containers()
    host = json.loads(docker("inspect", "--format", "{{json .HostConfig}}", engine))
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert (host["ReadonlyRootfs"], host["PidsLimit"], host["SecurityOpt"]) == (
        True,
        8192,
        ["no-new-privileges:true"],
    )
    assert (host["IpcMode"], host["PidMode"], host["Devices"], host["PortBindings"]) == (
        "private",
        "",
        None,
        {},
    )
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert [mount for mount in host["Mounts"] if "docker.sock" in mount["Source"]] == []
    lines = docker("exec", engine, "cat", "/proc/self/status").splitlines()
    process = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert process["Uid"].split() == [str(os.getuid())] * 4  # `user: caller`
    assert {process[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert process["NoNewPrivs"] == "1"
    written = "touch /x /usr/x /models/x 2>/dev/null; ls /x /usr/x /models/x || true"
    assert docker("exec", engine, "sh", "-c", written) == ""
    labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", engine))
    ours = {name for name in labels if not name.startswith("com.docker.compose.")}
    assert ours == {"deckard.deployment", "deckard.plan", "deckard.launch", "deckard.gateway"}


def test_server_refuses_unneeded_requests() -> None:
    """Asked from beside it, past the gateway; what it does do is the control of each."""
    (engine,) = containers()
    script = (Path(__file__).parents[1] / "support" / "probe_inside.py").read_text()
    said = json.loads(docker("exec", "-i", engine, "python3", "-", "127.0.0.1:8000", stdin=script))
    assert {route for route, code in said["routes"].items() if code != 404} == {
        "GET /version",
        "GET /v1/models",
    }
    assert [
        name for name in said["headers of another origin"] if name.lower().startswith("access-control")
    ] == []
    assert (said["two answers"][0], said["image here"][0]) == (200, 200)
    assert said["65 answers"][0] == 400
    assert "at most 64" in said["65 answers"][1]
    assert said["image elsewhere"][0] == 400
    assert "allowed domains: ['media.invalid']" in said["image elsewhere"][1]
    assert "Cannot load local files" in said["image of the server"][1]


def test_cross_site_request_is_refused(base_url: str) -> None:
    """A browser sends this to another site without a preflight request; no key is needed here."""
    url, origin = f"{base_url}/chat/completions", {"Origin": "http://evil.example"}
    body = json.dumps(
        {"model": "tiny-gemma4", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 1}
    )

    def sent(kind: str | None) -> int:
        return requests.post(
            url, data=body.encode(), headers={**origin, "Content-Type": kind}, timeout=60
        ).status_code

    simple = ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded")
    assert {
        sent(kind) for kind in (*simple, "text/plain; application/json", "application/jsonx", "", None)
    } == {415}
    assert (sent("application/json"), sent("Application/JSON; charset=utf-8")) == (200, 200)
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    asked = requests.options(url, headers=preflight, timeout=10)
    assert asked.status_code == 204
    assert [name for name in asked.headers if name.lower().startswith("access-control-")] == []


REQUEST = r"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ASK = f"exec 3<>/dev/tcp/10.213.1.2/8080; printf '{REQUEST}' >&3; head -n 1 <&3"


def test_gateway_refuses_container_neighbour(gateway_image: str) -> None:
    """A second network stands for a route to the container's network, which docker before 28 lets through."""
    network = f"{NAME}-neighbours"
    docker("network", "create", "--subnet", "10.213.0.0/16", network)
    docker("network", "connect", "--ip", "10.213.1.2", network, GATEWAY)
    try:
        run = ("run", "--rm", "--network", network, "--ip")
        near, far = (
            docker(*run, address, gateway_image, "bash", "-c", ASK)
            for address in ("10.213.1.3", "10.213.2.3")
        )
    finally:
        docker("network", "disconnect", network, GATEWAY)
        docker("network", "rm", network)
    assert (near.split()[1], far.split()[1]) == ("200", "403")


def test_planted_secrets_leak_nowhere(
    started: subprocess.CompletedProcess[str], tool: Tool, planted: dict[str, str], home: Path
) -> None:
    """Of a deployment that runs: what was said, docker's view, every process of this machine, every file of ours."""
    named = ("--name", NAME)
    verbs = (
        ("status", "--json", *named),
        ("logs", *named),
        ("bench", "--dry-run", *named),
        ("top", "--once", *named),
    )
    said = [started, *(tool(*words, **planted) for words in verbs)]
    places = {"said": "".join(one.stdout + one.stderr for one in said).encode()}
    for container in (*containers(), GATEWAY):
        for words in ("inspect", "logs", "top"):
            places[f"docker {words} {container}"] = docker(words, container).encode()
    found = [
        path for folder in ("deployments", "keys") for path in (home / folder).rglob("*") if path.is_file()
    ]
    places |= {str(path): path.read_bytes() for path in found}
    with subprocess.Popen(["sleep", "60"], env={**os.environ, **planted}) as control:
        for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                places[str(path)] = path.read_bytes()
        control.kill()
    (engine,) = containers()
    assert f"/proc/{docker('inspect', '--format', '{{.State.Pid}}', engine)}/environ" in places
    leaked = {place for place, data in places.items() if planted_secrets.hits(data, planted_secrets.SECRETS)}
    assert leaked == {f"/proc/{control.pid}/environ"}


def test_only_owner_reads_state_folder(home: Path) -> None:
    for folder in (home, home / "deployments", home / "deployments" / NAME, home / "keys"):
        assert folder.stat().st_mode & 0o777 == 0o700
    for file in (home / "keys").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600


def test_key_changes_need_no_restart_and_leak_nothing(
    base_url: str, tool: Tool, arguments: list[str], home: Path
) -> None:
    before = containers()
    key = tool("keys", "add", "alice").stdout.strip()
    asked = {"Authorization": f"Bearer {key}"}
    assert requests.get(f"{base_url}/models", timeout=10).status_code == 401
    assert requests.get(f"{base_url}/models", headers=asked, timeout=10).status_code == 200
    assert tool("chat", "Hello?", "--name", NAME).stdout.strip() == PLAIN_TEXT
    assert "nothing to do" in tool(*arguments).stderr
    own = (home / "keys" / "own.key").read_text().strip()
    seen = docker("inspect", *containers(), GATEWAY) + docker("logs", GATEWAY) + docker("top", GATEWAY)
    written = "".join(path.read_text(errors="replace") for path in home.glob("deployments/*/releases/*/*.*"))
    for secret in (key.rpartition("-")[2], own.rpartition("-")[2]):
        assert secret not in seen + written
    assert "alice" in docker("logs", GATEWAY)
    tool("keys", "revoke", "alice")
    assert requests.get(f"{base_url}/models", headers=asked, timeout=10).status_code == 401
    assert containers() == before
    shutil.rmtree(home / "keys")  # so that the tests below need none
    tool(*arguments)
    assert requests.get(f"{base_url}/models", timeout=10).status_code == 200


def test_up_restarts_stopped_gateway(base_url: str, tool: Tool, arguments: list[str]) -> None:
    docker("stop", GATEWAY)
    assert status(tool)["answers"] != "ready"
    assert tool(*arguments).stdout.strip() == base_url
    assert status(tool)["answers"] == "ready"


def test_second_up_does_nothing(tool: Tool, base_url: str, arguments: list[str]) -> None:
    before = containers()
    again = tool(*arguments)
    assert again.stdout.strip() == base_url
    assert "nothing to do" in again.stderr
    assert containers() == before


def test_up_replaces_older_gateway_on_request(tool: Tool, arguments: list[str], home: Path) -> None:
    launch = home / "deployments" / NAME / "current" / "launch.json"
    ours = launch.read_text()
    launch.write_text(ours.replace('"nginx.conf": "', '"nginx.conf": "of another version: '))
    planned = tool(*arguments, "--dry-run").stderr
    upgraded = tool(*arguments, "--dry-run", "--upgrade").stderr
    launch.write_text(ours)
    assert "this version of the tool writes nginx.conf otherwise: --upgrade replaces it" in planned
    assert "would do nothing" in planned
    assert "would replace the running release" in upgraded


def serves_again(tool: Tool, base_url: str) -> None:
    assert (status(tool)["answers"], clients.plain(base_url)[0], len(containers())) == (
        "ready",
        PLAIN_TEXT,
        1,
    )


def test_image_with_bad_flag_is_rolled_back(
    tool: Tool, base_url: str, arguments: list[str], broken_image: str
) -> None:
    failed = tool(*arguments, "--image", broken_image, check=False)
    assert failed.returncode == 6, failed.stderr
    assert "--linear-backend" in failed.stderr
    assert "~ image" in failed.stderr
    serves_again(tool, base_url)


def test_container_killed_at_start_is_rolled_back(
    tool: Tool, base_url: str, arguments: list[str], home: Path
) -> None:
    (old,) = containers()
    command = [sys.executable, "-m", "deckard_deploy", *arguments, "--set", "max-num-seqs=3"]
    environment = {**os.environ, "DECKARD_HOME": str(home)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as up:
        (started,) = eventually(lambda: {*containers("--filter", "status=running")} - {old}, 120)
        docker("kill", started)
        _, errors = up.communicate(timeout=600)
    assert up.returncode == 6, errors
    serves_again(tool, base_url)


def test_down_leaves_nothing(tool: Tool) -> None:
    assert containers()
    tool("down", "--name", NAME)
    assert containers() == []
    for kind in ("network", "volume"):
        assert (
            docker(kind, "ls", "--quiet", "--filter", f"label=com.docker.compose.project=deckard-{NAME}")
            == ""
        )
