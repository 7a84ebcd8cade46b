"""compose.yaml means the same as its plan, with any text in it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.planning.plan import CdiGpus, ChosenGpus, LaunchPlan
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.planning.replicas import as_front, replica_choice, shares
from deckard_deploy.rendering.compose import (
    PIDS_LIMIT,
    compose_model,
    render_compose,
    render_compose_group,
    replica_servers,
)
from deckard_deploy.rendering.gateway import render_gateway
from tests.support.sample_choices import choice
from tests.support.sample_plans import PROFILES, built_in, with_text

AWKWARD = [
    "$HOME",
    "${X:-y}",
    "a: b # c",
    "on",
    "22:22",
    "'",
    '"',
    "\\",
    "\n",
    "\t",
    "\x7f",
    "\u2028",
    "\ufeff",
    "é",
    "😀",
    " ",
]


def undouble_dollars(value: object) -> object:
    if isinstance(value, dict):
        return {key: undouble_dollars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [undouble_dollars(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_text_parses_to_model(profile: str) -> None:
    plan = built_in(profile)
    assert yaml.safe_load(render_compose(plan)) == compose_model(plan)


def test_chosen_gpus_become_device_ids() -> None:
    plan = built_in("b200").model_copy(update={"gpus": ChosenGpus(ids=("3", "5"))})
    (device,) = yaml.safe_load(render_compose(plan))["services"]["vllm"]["deploy"]["resources"][
        "reservations"
    ]["devices"]
    # Compose takes either, and texts alone (docs.docker.com, "Enable GPU support").
    assert device == {"driver": "nvidia", "device_ids": ["3", "5"], "capabilities": ["gpu"]}


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_awkward_text_survives(text: str) -> None:
    plan = with_text(text)
    service = undouble_dollars(yaml.safe_load(render_compose(plan))["services"]["vllm"])
    assert isinstance(service, dict)
    assert service["command"][-1] == text
    assert service["environment"]["NOTE"] == text
    assert service["volumes"][-1]["source"] == f"/data/{text}"


@pytest.mark.parametrize("text", ["$HOME", "on", "\x7f"])
def test_control_unquoted_scalar_is_detected(text: str) -> None:
    """Control of the two tests above: unquoted text does not survive."""
    try:
        read = yaml.safe_load(f"value: {text}")["value"]
    except yaml.YAMLError:
        return
    assert read != text or "$" in text


@pytest.mark.parametrize("engine", ["vllm-0.19.1", "vllm-0.32.0"])
def test_build_command_writes_to_mounted_folder(engine: str) -> None:
    """Each command writes into a mounted folder, also with a space in its name."""
    root = PurePosixPath("/srv/my files/patches")
    resolved = resolve(Deployment(engine=engine), profile=library.profile("spark"))
    plan = with_needed_patches(build_plan(resolved), resolved, root)
    lines = [text for text in render_compose(plan).splitlines() if "# " in text and "--output" in text]
    assert len(lines) == 2
    folders = {str(PurePosixPath(mount.source).parent) for mount in plan.built}
    assert {shlex.split(line)[-1] for line in lines} == folders


def test_launch_id_is_only_in_launch_file() -> None:
    plan = built_in("spark")
    launched = compose_model(plan, launch_id="deckard-launch-1")["services"]["vllm"]
    at = launched["command"].index("--served-model-name")
    assert launched["command"][at + 1 : at + 3] == ["deckard-31b", "deckard-launch-1"]
    assert launched["labels"]["deckard.launch"] == "deckard-launch-1"
    assert launched["labels"]["deckard.plan"] == plan.hash
    assert "deckard-launch-1" not in render_compose(plan)


@pytest.mark.parametrize("profile", PROFILES)
def test_no_profile_is_exposed_or_unbounded(profile: str) -> None:
    services = compose_model(built_in(profile))["services"]
    service = services["vllm"]
    assert "ports" not in service
    assert [port["host_ip"] for port in services["gateway"]["ports"]] == ["127.0.0.1"]
    assert service["restart"] == "on-failure:2"
    assert service["init"] is True
    assert "privileged" not in service
    assert all(volume["bind"]["create_host_path"] is False for volume in service["volumes"])
    assert all(volume["read_only"] for volume in service["volumes"] if volume["target"].startswith("/models"))


def test_rendering_is_equal_on_every_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deckard_deploy", "render", "compose", "--profile", "spark"]
    here = {
        "PATH": os.environ["PATH"],
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "1",
    }
    there = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "de_DE",
        "TZ": "Pacific/Kiritimati",
        "PYTHONHASHSEED": "4242",
        "COLUMNS": "20",
        "NO_COLOR": "1",
    }
    first = subprocess.run(command, env=here, cwd="/", capture_output=True, check=True).stdout
    second = subprocess.run(command, env=there, cwd=tmp_path, capture_output=True, check=True).stdout
    assert first == second
    assert len(first) > 1000


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_confined(profile: str) -> None:
    service = compose_model(built_in(profile))["services"]["vllm"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert (service["read_only"], service["pids_limit"]) == (True, PIDS_LIMIT)
    assert not {"privileged", "network_mode", "ipc", "cap_add", "devices", "pid", "userns_mode"} & set(
        service
    )
    writable = [volume["target"] for volume in service["volumes"] if not volume["read_only"]]
    assert all("/cache" in target or "/.cache" in target for target in writable)


def test_compat_service_is_not_confined() -> None:
    kept = resolve(
        Deployment(), profile=library.profile("spark"), compatibility=library.compatibility("seed")
    )
    service = compose_model(build_plan(kept))["services"]["vllm"]
    assert service["restart"] == "unless-stopped"
    assert "# Bounded" not in render_compose(build_plan(kept))
    assert "# Bounded" in render_compose(build_plan(choice("spark")))
    assert not {"cap_drop", "security_opt", "read_only", "tmpfs", "pids_limit", "user"} & set(service)


def test_cdi_reserves_devices_by_name() -> None:
    plan = built_in("spark").model_copy(update={"gpus": CdiGpus(count=2)})
    parsed = yaml.safe_load(render_compose(plan))
    devices = parsed["services"]["vllm"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [
        {"driver": "cdi", "device_ids": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"], "capabilities": ["gpu"]}
    ]


def test_only_root_nginx_names_its_user() -> None:
    """Without capabilities root cannot become another user, which nginx's workers would try."""
    plan = built_in("spark")
    assert plan.gateway is not None
    assert "-g" not in compose_model(plan)["services"]["gateway"]["command"]
    rootless = plan.model_copy(update={"gateway": plan.gateway.model_copy(update={"user": "0:0"})})
    assert compose_model(rootless)["services"]["gateway"]["command"][-2:] == ["-g", "user root root;"]


def group(count: int) -> tuple[LaunchPlan, list[LaunchPlan]]:
    resolved = choice("b200", f"replicas={count}")
    return as_front(build_plan(resolved)), [
        build_plan(replica_choice(resolved, share)) for share in shares(resolved)
    ]


def test_eight_replicas_have_own_gpu_cache_and_network_and_one_front() -> None:
    model = yaml.safe_load(render_compose_group(*group(8)))
    engines = {name: service for name, service in model["services"].items() if name != "gateway"}
    devices = [service["deploy"]["resources"]["reservations"]["devices"][0] for service in engines.values()]
    assert [device["device_ids"] for device in devices] == [[str(number)] for number in range(8)]
    written = [
        volume["source"]
        for service in engines.values()
        for volume in service["volumes"]
        if not volume["read_only"]
    ]
    assert len(written) == len(set(written)) > 0
    networks = [service["networks"] for service in engines.values()]
    assert networks == [[f"private-{number}"] for number in range(1, 9)]
    assert all(model["networks"][name]["internal"] for (name,) in networks)
    gateway = model["services"]["gateway"]
    assert gateway["depends_on"] == list(engines)
    assert gateway["networks"] == [*(name for (name,) in networks), "public"]
    assert [name for name, service in model["services"].items() if "ports" in service] == ["gateway"]


def test_front_asks_services_of_its_compose_file() -> None:
    _, replicas = group(2)
    assert replica_servers(replicas) == ["vllm-1:8000", "vllm-2:8000"]


def test_front_in_docker_is_nginx_alone_with_sockets_of_replicas() -> None:
    resolved = choice("b200", "replicas=2")
    front = as_front(build_plan(resolved), PurePosixPath("/s/replicas"))
    model = yaml.safe_load(render_compose(front, launch_id="deckard-launch-1"))
    assert list(model["services"]) == ["gateway"]
    service = model["services"]["gateway"]
    assert service["labels"]["deckard.launch"] == "deckard-launch-1"
    assert (service["networks"], list(model["networks"])) == (["public"], ["public"])
    assert "depends_on" not in service
    (sockets,) = [volume for volume in service["volumes"] if volume["source"] == "/s/replicas"]
    assert (sockets["target"], sockets["read_only"]) == ("/run/deckard/replicas", True)


def test_replica_in_docker_and_its_own_gateway_share_its_socket() -> None:
    resolved = choice("b200", "replicas=2")
    plan = build_plan(replica_choice(resolved, shares(resolved)[1]), DEFAULT_PATHS._replace(sockets=True))
    services = yaml.safe_load(render_compose(plan))["services"]
    shared = {
        name: [
            volume["read_only"] for volume in service["volumes"] if volume["source"].endswith("/replicas/2")
        ]
        for name, service in services.items()
    }
    assert shared == {"vllm": [False], "gateway": [True]}
    assert 'set $vllm "unix:/run/deckard/replicas/2/vllm.sock:"' in render_gateway(plan)
