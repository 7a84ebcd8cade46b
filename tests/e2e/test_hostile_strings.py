"""250 hostile strings: byte-equal as arguments inside a real container, and one meaning under two compose parsers."""

import itertools
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.compose import compose_model, render_compose
from tests.support.docker_deployment import IMAGE, DockerDeployment, docker, make_image

pytestmark = pytest.mark.docker
PIECES = [
    "$HOME", "${X:-y}", "$$", "$(id)", "`id`", "{{7*7}}", "{% raw %}", "a: b # c", "- x", "on", "no", "22:22", "0755",
    "1e3", "~", "null", "'", '"', "\\", "\n", "\t", "\r", "\x01", "\x7f", "\x85", "\u2028", "\ufeff", "é", "😀",
    " ", "", "--privileged", "&a", "*a", "!!python/object", "x\n    privileged: true", "%s", "|", ">", "@", "\x1b[31m",
    "../..", "=",
]  # fmt: skip
SEED = 20261125


def hostile() -> list[str]:
    pairs = ["".join(pair) for pair in itertools.product(PIECES, PIECES)]
    return [*PIECES, *random.Random(SEED).sample(pairs, 250 - len(PIECES))]


@pytest.fixture(scope="module", autouse=True)
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    make_image(tmp_path_factory.mktemp("busybox"))
    yield
    subprocess.run(["docker", "rmi", "-f", IMAGE], check=True, capture_output=True)


@pytest.fixture
def plan(tmp_path: Path) -> LaunchPlan:
    strings = hostile()
    assert len(strings) == 250
    show = ("/bin/busybox", "sh", "-c", "/bin/busybox cat /proc/$$/cmdline; true", "x")
    environment = {f"V{number}": text for number, text in enumerate(strings)}
    plan = DockerDeployment(tmp_path, "hostile").plan(
        port=1, changes={"entrypoint": show, "environment": environment}
    )
    arguments = (*plan.arguments, *strings)
    return plan.model_copy(
        update={"arguments": arguments, "container": plan.container.model_copy(update={"restart": "no"})}
    )


def undollared(value: object) -> object:
    if isinstance(value, dict):
        return {key: undollared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [undollared(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


def test_compose_parsers_agree(plan: LaunchPlan, tmp_path: Path) -> None:
    text = render_compose(plan)
    (expected,) = compose_model(plan)["services"].values()
    (ours,) = yaml.safe_load(text)["services"].values()
    assert undollared(ours) == expected
    (tmp_path / "compose.yaml").write_text(text)
    read = docker("compose", "-f", str(tmp_path / "compose.yaml"), "config", "--format", "json")
    (theirs,) = json.loads(read)["services"].values()
    # `config` prints what could be read again, and so doubles the dollars again.
    for name in ("command", "environment", "cap_drop", "read_only", "security_opt"):
        assert undollared(theirs[name]) == expected[name]
    assert not {"privileged", "cap_add", "network_mode"} & set(theirs)


def test_hostile_strings_arrive_byte_equal(plan: LaunchPlan, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(render_compose(plan))
    compose = ("compose", "-p", "hostile", "-f", str(tmp_path / "compose.yaml"))
    try:
        docker(*compose, "create", "--pull", "never")
        shown = subprocess.run(
            ["docker", "start", "--attach", plan.container_name], capture_output=True, check=False, timeout=60
        ).stdout
        variables = json.loads(docker("inspect", "--format", "{{json .Config.Env}}", plan.container_name))
    finally:
        docker(*compose, "down", "--timeout", "1")
    assert variables_of(variables, plan) == plan.environment
    argv = shown.decode().split("\0")[:-1]  # of the kernel, which ends each with a NUL
    assert argv[argv.index("/models/tiny") :] == list(plan.arguments)


def variables_of(variables: list[str], plan: LaunchPlan) -> dict[str, str]:
    found = dict(text.split("=", 1) for text in variables)
    return {name: value for name, value in found.items() if name in plan.environment}
