"""Render compose.yaml from a LaunchPlan. The text is parsed back and must equal its model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from deckard_deploy import __version__
from deckard_deploy.planning.gateway import FOLDER, PORT, REPLICAS_FOLDER
from deckard_deploy.planning.plan import BindMount, CdiGpus, Gateway, LaunchPlan
from deckard_deploy.planning.planner import patch_folder
from deckard_deploy.rendering.gateway import CONFIG
from deckard_deploy.rendering.templates import environment, shell_word

SERVICE = "vllm"
GATEWAY = "gateway"
# The engine is on a network without any other host; the gateway's published port needs `public`.
PRIVATE = "private"
PUBLIC = "public"
# Without an address on the bridge: on an `internal` network a container reaches all addresses of the host by
# the bridge's own address (docker 20.10; docs.docker.com/engine/network/drivers/bridge, "Options").
_PRIVATE_NETWORK = {
    "internal": True,
    "driver_opts": {"com.docker.network.bridge.inhibit_ipv4": "true"},
}
# Threads count too: compiling on a machine with 224 cores starts some thousands.
PIDS_LIMIT = 8192
# exec: vLLM compiles code into this folder and loads it. mode=1777: the container has no other users.
SCRATCH_OPTIONS = "exec,nosuid,nodev,mode=1777,size=2g"
LOGGING = {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}}


def render_compose(plan: LaunchPlan, *, launch_id: str | None = None) -> str:
    """Return the compose file of a plan, or of one launch with `launch_id`.

    Raises AssertionError, a bug of this project, when the text does not mean the same as the model.
    """
    model = compose_model(plan, launch_id=launch_id)
    title = f"{plan.model} on {plan.profile}, {plan.engine}"
    if plan.compatibility:
        title += f", kept as the {plan.compatibility} has it"
    engines = [Engine(SERVICE, plan, _patch_command(plan))]
    if plan.role == "front":
        title, engines = f"the front of the replicas of {plan.deployment}", []
    return _checked_text(model, plan, title=title, engines=engines)


class Engine(NamedTuple):
    """An engine's service, its plan, and the command that builds its patched files."""

    service: str
    plan: LaunchPlan
    patch_command: str


def _checked_text(model: dict[str, Any], plan: LaunchPlan, *, title: str, engines: list[Engine]) -> str:
    template = environment().get_template("compose.yaml.j2")
    text = template.render(model=model, plan=plan, version=__version__, title=title, engines=engines)
    # `render` must be quick: PyYAML's C parser, where libyaml is installed.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    parsed = _undouble_dollars(yaml.load(text, Loader=loader))  # noqa: S506  both safe
    if parsed != model:
        raise AssertionError(f"compose.yaml of plan {plan.hash} does not mean what its model says")
    return text


def render_compose_group(front: LaunchPlan, replicas: Sequence[LaunchPlan]) -> str:
    """Return the compose file of replicas and their front. Raises AssertionError as `render_compose`."""
    model = group_model(front, replicas)
    first = replicas[0]
    title = f"{len(replicas)} x {first.model} on {first.profile}, {first.engine}"
    engines = [
        Engine(_replica_service(number), plan, _patch_command(plan))
        for number, plan in enumerate(replicas, start=1)
    ]
    return _checked_text(model, front, title=title, engines=engines)


def _patch_command(plan: LaunchPlan) -> str:
    """Return the command that builds the patched files into the folder that the plan mounts, or ""."""
    if not plan.patches:
        return ""
    names = {patch.name for patch in plan.patches}
    drafter = "--drafter" if "eagle" in names else "--no-drafter"
    quantization = "nvfp4_awq" if "modelopt" in names else "none"
    options = f"--image {plan.image} {drafter} --quantization {quantization}"
    return f"deckard-deploy patches build {options} --output {shell_word(str(patch_folder(plan)))}"


def compose_model(plan: LaunchPlan, *, launch_id: str | None = None) -> dict[str, Any]:
    """Return the compose file as plain data, before `$` is doubled.

    compose-spec: services, ports, volumes in long form.
    """
    if plan.role == "front" and plan.gateway:
        return _front_model(plan, plan.gateway, launch_id)
    service = _engine_service(plan, launch_id)
    model: dict[str, Any] = {"name": _project(plan), "services": {SERVICE: _without_none(service)}}
    if plan.gateway:
        model["services"][GATEWAY] = _gateway_service(plan, plan.gateway)
        model["networks"] = {PRIVATE: _PRIVATE_NETWORK, PUBLIC: {}}
    return model


def _front_model(plan: LaunchPlan, gateway: Gateway, launch_id: str | None) -> dict[str, Any]:
    """Return nginx alone, in front of replicas that other compose files start."""
    service = _gateway_service(plan, gateway, launch_id) | {"networks": [PUBLIC]}
    del service["depends_on"]
    return {"name": _project(plan), "services": {GATEWAY: service}, "networks": {PUBLIC: {}}}


def group_model(front: LaunchPlan, replicas: Sequence[LaunchPlan]) -> dict[str, Any]:
    """Return the compose file of replicas and their front as plain data, before `$` is doubled.

    Each engine is on a network that only the front shares: one does not reach another. Raises ValueError for a front
    without a gateway.
    """
    if front.gateway is None:
        raise ValueError(f"{front.deployment} has no gateway")
    services, networks = {}, {}
    for number, plan in enumerate(replicas, start=1):
        network = f"{PRIVATE}-{number}"
        service = _engine_service(plan) | {"networks": [network]}
        services[_replica_service(number)] = _without_none(service)
        networks[network] = _PRIVATE_NETWORK
    gateway = _gateway_service(front, front.gateway)
    gateway |= {"networks": [*networks, PUBLIC], "depends_on": list(services)}
    return {
        "name": _project(front),
        "services": {**services, GATEWAY: gateway},
        "networks": {**networks, PUBLIC: {}},
    }


def replica_servers(replicas: Sequence[LaunchPlan]) -> list[str]:
    """Return the addresses of replicas on the networks of their compose file."""
    return [
        f"{_replica_service(number)}:{plan.container_port}" for number, plan in enumerate(replicas, start=1)
    ]


def _replica_service(number: int) -> str:
    return f"{SERVICE}-{number}"


def _project(plan: LaunchPlan) -> str:
    """Return the project's name, in which compose allows no dot."""
    return f"deckard-{plan.deployment.replace('.', '_')}"


def _without_none(service: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in service.items() if value is not None}


def _engine_service(plan: LaunchPlan, launch_id: str | None = None) -> dict[str, Any]:
    """Return the engine's service; absent keys are None."""
    arguments = plan.launched(launch_id).arguments if launch_id else plan.arguments
    container = plan.container
    service: dict[str, Any] = {
        "container_name": plan.container_name,
        "image": plan.image,
        "platform": plan.platform,
        "entrypoint": list(plan.entrypoint),
        "command": list(arguments),
        "init": True,
        "labels": _labels(plan, launch_id),
        "environment": plan.environment or None,
        "volumes": [_volume(mount) for mount in plan.all_mounts],
        "restart": container.restart,
        "stop_grace_period": f"{container.stop_grace_period_s}s",
        **_network(plan),
        "ipc": None if container.ipc == "private" else container.ipc,
        "shm_size": container.shm_size,
        "healthcheck": _healthcheck(plan),
        "deploy": _devices(plan),
    }
    if not plan.compatibility:
        service |= _confinement(plan)
        service["logging"] = LOGGING
    return service


def _labels(plan: LaunchPlan, launch_id: str | None = None) -> dict[str, str]:
    labels = {"deckard.deployment": plan.deployment, "deckard.plan": plan.hash}
    if launch_id:
        labels["deckard.launch"] = launch_id
    if plan.gateway:
        labels["deckard.gateway"] = "true"
    return labels


def _gateway_service(plan: LaunchPlan, gateway: Gateway, launch_id: str | None = None) -> dict[str, Any]:
    """Return the service of nginx, the only one that publishes a port."""
    sockets = [mount for mount in plan.mounts if mount.target.startswith(REPLICAS_FOLDER)]
    config = BindMount(source=f"./{CONFIG}", target=f"{FOLDER}-{CONFIG}")
    return {
        "container_name": f"{plan.container_name}-gateway",
        "image": gateway.image,
        "entrypoint": ["nginx"],
        "command": ["-e", "stderr", "-c", config.target, *_nginx_user(gateway)],
        "user": gateway.user,
        "labels": _labels(plan, launch_id),
        "volumes": [
            _volume(config),
            _volume(BindMount(source=gateway.folder, target=FOLDER)),
            *(_volume(mount.model_copy(update={"read_only": True})) for mount in sockets),
        ],
        "networks": [PRIVATE, PUBLIC],
        "ports": [_port(plan, PORT)],
        "depends_on": [SERVICE],
        "read_only": True,
        "tmpfs": ["/tmp:nosuid,nodev,noexec,mode=1777,size=256m"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 64,
        "restart": plan.container.restart,
        "stop_signal": "SIGTERM",  # a fast shutdown, because the engine behind it stops too
        "logging": LOGGING,
    }


def _nginx_user(gateway: Gateway) -> list[str]:
    """Return the option for an nginx that is root, as in rootless docker.

    Without it the workers become `nobody`, which a root without capabilities cannot.
    """
    may_be_root = gateway.user is not None and gateway.user.startswith(("0:", "${"))
    return ["-g", "user root root;"] if may_be_root else []


def _confinement(plan: LaunchPlan) -> dict[str, Any]:
    """Return the settings that restrict the container."""
    return {
        "user": plan.user,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "tmpfs": [f"{folder}:{SCRATCH_OPTIONS}" for folder in plan.scratch],
        "pids_limit": PIDS_LIMIT,
    }


def _volume(mount: BindMount) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": mount.source,
        "target": mount.target,
        "read_only": mount.read_only,
        "bind": {"create_host_path": False},
    }


def _network(plan: LaunchPlan) -> dict[str, Any]:
    if plan.container.network == "host":
        return {"network_mode": "host"}
    if plan.gateway:
        return {"networks": [PRIVATE]}
    return {"ports": [_port(plan, plan.container_port)]}


def _port(plan: LaunchPlan, target: int) -> dict[str, Any]:
    return {"target": target, "published": str(plan.port), "host_ip": plan.address, "protocol": "tcp"}


def _healthcheck(plan: LaunchPlan) -> dict[str, Any] | None:
    check = plan.healthcheck
    if check is None:
        return None
    return {
        "test": ["CMD", *check.command],
        "interval": f"{check.interval_s}s",
        "timeout": f"{check.timeout_s}s",
        "retries": check.retries,
        "start_period": f"{check.start_period_s}s",
    }


def _devices(plan: LaunchPlan) -> dict[str, Any] | None:
    if plan.gpus is None:
        return None
    device: dict[str, Any] = {"driver": "nvidia"}
    if isinstance(plan.gpus, CdiGpus):
        device = {"driver": "cdi", "device_ids": list(plan.gpus.devices)}
    elif plan.gpus.ids:
        device["device_ids"] = list(plan.gpus.ids)
    else:
        device["count"] = plan.gpus.count
    device["capabilities"] = ["gpu"]
    return {"resources": {"reservations": {"devices": [device]}}}


def _undouble_dollars(value: Any) -> Any:  # noqa: ANN401  YAML of any shape
    """Replace `$$` by `$`, as compose does with the parsed text."""
    if isinstance(value, dict):
        return {_undouble_dollars(key): _undouble_dollars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_undouble_dollars(item) for item in value]
    if isinstance(value, str):
        return value.replace("$$", "$")
    return value
