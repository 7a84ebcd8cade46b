"""LaunchPlan -> compose.yaml. The text is parsed back and must equal the model it was made from."""

from typing import Any

import yaml

from deckard_deploy import __version__
from deckard_deploy.planning.gateway import FOLDER, PORT
from deckard_deploy.planning.plan import BindMount, Gateway, LaunchPlan
from deckard_deploy.planning.planner import patch_folder
from deckard_deploy.rendering.gateway import CONFIG
from deckard_deploy.rendering.templates import environment, shell_word

SERVICE, GATEWAY = "vllm", "gateway"
# The engine's network reaches nothing else; `public` is only there for the published port.
PRIVATE, PUBLIC = "private", "public"
# `internal` alone lets a container reach every address of the host itself, by the bridge's own; so the bridge has none
# (seen with docker 20.10; docs.docker.com/engine/network/drivers/bridge, "Options").
_NO_HOST = {"com.docker.network.bridge.inhibit_ipv4": "true"}
# Threads count too: a machine of 224 cores, compiling, has some thousands.
PIDS_LIMIT = 8192
# exec: code is compiled into it and loaded from there. Nobody else is in the container, so it may be open to all.
SCRATCH_OPTIONS = "exec,nosuid,nodev,mode=1777,size=2g"
LOGGING = {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}}


def render_compose(plan: LaunchPlan, *, launch_id: str | None = None) -> str:
    """The compose file of a plan; with `launch_id`, of one launch of it.

    Raises AssertionError, a bug of ours, when the text does not mean what the model says.
    """
    model = compose_model(plan, launch_id=launch_id)
    title = f"{plan.model} on {plan.profile}, {plan.engine}"
    if plan.compatibility:
        title += f", kept as the {plan.compatibility} has it"
    patch_command = _patch_command(plan)
    text = (
        environment()
        .get_template("compose.yaml.j2")
        .render(model=model, plan=plan, version=__version__, title=title, patch_command=patch_command)
    )
    # C parser where libyaml is there: `render` must be quick.
    parsed = _undollared(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506  both safe
    if parsed != model:
        raise AssertionError(f"compose.yaml of plan {plan.hash} does not mean what its model says")
    return text


def _patch_command(plan: LaunchPlan) -> str:
    """What builds the patched files where the plan mounts them from."""
    if not plan.patches:
        return ""
    names = {patch.name for patch in plan.patches}
    drafter = "--drafter" if "eagle" in names else "--no-drafter"
    quantization = "nvfp4_awq" if "modelopt" in names else "none"
    options = f"--image {plan.image} {drafter} --quantization {quantization}"
    return f"deckard-deploy patches build {options} --output {shell_word(str(patch_folder(plan)))}"


def compose_model(plan: LaunchPlan, *, launch_id: str | None = None) -> dict[str, Any]:
    """The same as plain data, `$` not yet doubled (compose-spec: services, ports, volumes in long form)."""
    labels = {"deckard.deployment": plan.deployment, "deckard.plan": plan.hash}
    if launch_id:
        labels["deckard.launch"] = launch_id
    if plan.gateway:
        labels["deckard.gateway"] = "true"
    arguments = plan.launched(launch_id).arguments if launch_id else plan.arguments
    service: dict[str, Any] = {
        "container_name": plan.container_name,
        "image": plan.image,
        "platform": plan.platform,
        "entrypoint": list(plan.entrypoint),
        "command": list(arguments),
        "init": True,
        "labels": labels,
        "environment": plan.environment or None,
        "volumes": [_volume(mount) for mount in plan.all_mounts],
        "restart": plan.container.restart,
        "stop_grace_period": f"{plan.container.stop_grace_period_s}s",
        **_network(plan),
        "ipc": None if plan.container.ipc == "private" else plan.container.ipc,
        "shm_size": plan.container.shm_size,
        "healthcheck": _healthcheck(plan),
        "deploy": _devices(plan),
    }
    if not plan.compatibility:
        service |= _confined(plan)
        service["logging"] = LOGGING
    present = {key: value for key, value in service.items() if value is not None}
    # compose allows no dot in a project's name
    model: dict[str, Any] = {
        "name": f"deckard-{plan.deployment.replace('.', '_')}",
        "services": {SERVICE: present},
    }
    if plan.gateway:
        model["services"][GATEWAY] = _gateway(plan, plan.gateway)
        model["networks"] = {PRIVATE: {"internal": True, "driver_opts": _NO_HOST}, PUBLIC: {}}
    return model


def _gateway(plan: LaunchPlan, gateway: Gateway) -> dict[str, Any]:
    """nginx, which alone publishes a port."""
    config = BindMount(source=f"./{CONFIG}", target=f"{FOLDER}-{CONFIG}")
    return {
        "container_name": f"{plan.container_name}-gateway",
        "image": gateway.image,
        "entrypoint": ["nginx"],
        "command": ["-e", "stderr", "-c", config.target],
        "user": gateway.user,
        "labels": {
            "deckard.deployment": plan.deployment,
            "deckard.plan": plan.hash,
            "deckard.gateway": "true",
        },
        "volumes": [_volume(config), _volume(BindMount(source=gateway.folder, target=FOLDER))],
        "networks": [PRIVATE, PUBLIC],
        "ports": [_port(plan, PORT)],
        "depends_on": [SERVICE],
        "read_only": True,
        "tmpfs": ["/tmp:nosuid,nodev,noexec,mode=1777,size=256m"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 64,
        "restart": plan.container.restart,
        "stop_signal": "SIGTERM",  # at once: the engine that it speaks for ends too
        "logging": LOGGING,
    }


def _confined(plan: LaunchPlan) -> dict[str, Any]:
    """What the container may not do."""
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
    which = {"device_ids": list(plan.gpus.ids)} if plan.gpus.ids else {"count": plan.gpus.count}
    device = {"driver": "nvidia", **which, "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}


def _undollared(value: Any) -> Any:  # noqa: ANN401  YAML of any shape
    """What compose makes of the parsed text: `$$` is `$`."""
    if isinstance(value, dict):
        return {_undollared(key): _undollared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_undollared(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value
