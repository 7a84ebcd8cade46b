"""Render Kubernetes manifests from a LaunchPlan, for a node that has the weights and the GPUs.

Deployment, Service, NetworkPolicy and ConfigMap.

The pod is as confined as the compose file: a read-only root, no capabilities, no egress, and ingress only
from pods with a label. The gateway is a second container of the pod, and vLLM listens on the loopback address
that only the two share. Keys are a Secret that the user creates, so no secret is rendered. Kubernetes
resolves `$(NAME)` in commands, arguments and variables and reads `$$` as `$`
(kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container).
"""

import re
from typing import Any

import yaml

from deckard_deploy import __version__
from deckard_deploy.planning import gateway as planned
from deckard_deploy.planning.plan import BindMount, Gateway, LaunchPlan, PatchMount
from deckard_deploy.rendering.gateway import CONFIG, render_gateway

ACCESS_LABEL = "deckard.access"
GPU = "nvidia.com/gpu"  # NVIDIA's device plugin
PORT = "http"
CONFIG_FOLDER = "/etc/deckard-nginx"
# The names in running/gateway/files.py.
ACCESS = "access.conf"
CERTIFICATE = "certificate.pem"
CERTIFICATE_KEY = "certificate.key"
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_UNITS = {"g": "Gi", "m": "Mi"}


class _ReadableDumper(yaml.SafeDumper):
    """A dumper without anchors, and with literal blocks for text of several lines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002  PyYAML's signature
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_ReadableDumper.add_representer(str, _represent_text)


def render_kubernetes(plan: LaunchPlan) -> str:
    """Return the manifests as YAML.

    Raises ValueError for a plan that shares the host's network or memory, or has no image.
    """
    shares = plan.container.network == "host" or plan.container.ipc == "host"
    if plan.gateway is None or plan.image is None or plan.compatibility or shares:
        raise ValueError(f"{plan.deployment} does not run confined in a pod")
    if plan.gpus and plan.gpus.ids:
        raise ValueError("Kubernetes chooses the GPUs itself: environment.CUDA_VISIBLE_DEVICES cannot be set")
    body = yaml.dump_all(
        manifests(plan), Dumper=_ReadableDumper, sort_keys=False, allow_unicode=True, width=10_000
    )
    return _comment(plan) + body


def _comment(plan: LaunchPlan) -> str:
    """Return the comment on top: the commands that prepare the node and the Secret."""
    files = " ".join(f"--from-file={file}" for file in secret_files(plan))
    commands = ["`deckard-deploy pull`"]
    if plan.patches:
        commands.append("`deckard-deploy patches build`")
    if plan.plugin:
        commands.append("`deckard-deploy patches wheel`")
    return (
        f"# {plan.model} on {plan.profile}, {plan.engine}\n"
        f"# Rendered by deckard-deploy {__version__} from plan {plan.hash}. "
        "The node must have what `hostPath` names:\n"
        f"# {' and '.join(commands)} make it there; a cache makes itself.\n"
        f"# A pod that may ask carries the label {ACCESS_LABEL}: {plan.deployment}, and has a key:\n"
        f"# deckard-deploy keys access > {ACCESS}\n"
        f"# kubectl create secret generic {secret_name(plan)} {files}\n"
    )


def manifests(plan: LaunchPlan) -> list[dict[str, Any]]:
    """Return the manifests as data."""
    labels = {"app.kubernetes.io/name": "deckard-deploy", "app.kubernetes.io/instance": plan.deployment}
    named = {"name": resource_name(plan), "labels": {**labels, "deckard.plan": plan.hash}}
    selected = {"matchLabels": labels}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # the GPUs hold one engine, not an old and a new one
        "progressDeadlineSeconds": _start_timeout_s(plan) + 60,
        "selector": selected,
        "template": {"metadata": {"labels": named["labels"]}, "spec": _pod(plan)},
    }
    service = {"selector": labels, "ports": [{"name": PORT, "port": plan.port, "targetPort": PORT}]}
    client = {"podSelector": {"matchLabels": {ACCESS_LABEL: plan.deployment}}}
    policy = {
        "podSelector": selected,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [client], "ports": [{"port": planned.PORT}]}],
        "egress": [],
    }
    config = {CONFIG: render_gateway(plan, in_pod=True)}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": service},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": named, "spec": policy},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": config},
    ]


def resource_name(plan: LaunchPlan) -> str:
    """Return a valid name for a Service (RFC 1035): letters, digits and dashes, 63 at most."""
    return re.sub("[^a-z0-9-]", "-", f"deckard-{plan.deployment}")[:63].rstrip("-")


def secret_name(plan: LaunchPlan) -> str:
    """Return the name of the Secret with the files that the gateway reads."""
    return f"{resource_name(plan)}-access"


def secret_files(plan: LaunchPlan) -> list[str]:
    """Return the names of the files that the Secret holds."""
    if plan.gateway and plan.gateway.tls:
        return [ACCESS, CERTIFICATE, CERTIFICATE_KEY]
    return [ACCESS]


def _pod(plan: LaunchPlan) -> dict[str, Any]:
    volumes, mounts = _engine_volumes(plan)
    # The engine mounts none of the gateway's volumes. Mode 444, because the gateway's user does not own the
    # files that Kubernetes writes.
    volumes += [
        {"name": "gateway", "configMap": {"name": resource_name(plan)}},
        {"name": "access", "secret": {"secretName": secret_name(plan), "defaultMode": 0o444}},
        {"name": "gateway-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
    ]
    containers = [_engine_container(plan, mounts)]
    if plan.gateway:
        containers.append(_gateway_container(plan, plan.gateway))
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called vllm would set VLLM_PORT, which vLLM reads (envs.py)
        "terminationGracePeriodSeconds": plan.container.stop_grace_period_s,
    }
    if plan.platform:
        pod["nodeSelector"] = {"kubernetes.io/arch": plan.platform.rpartition("/")[2]}
    return pod | {
        "securityContext": {**_user(plan), "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
        "volumes": volumes,
    }


def _engine_volumes(plan: LaunchPlan) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the pod's volumes for the engine, and the engine's mounts of them."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for number, mount in enumerate(plan.all_mounts):
        volume_name = f"host-{number}"
        volumes.append(_host_volume(volume_name, mount))
        mounts.append({"name": volume_name, "mountPath": mount.target, "readOnly": mount.read_only})
    size_limits = dict.fromkeys(plan.scratch, "")
    if plan.container.shm_size:
        size_limits["/dev/shm"] = _kubernetes_size(plan.container.shm_size)
    for number, (folder, size_limit) in enumerate(size_limits.items()):
        volume_name = f"memory-{number}"
        memory = {"medium": "Memory"}
        if size_limit:
            memory["sizeLimit"] = size_limit
        volumes.append({"name": volume_name, "emptyDir": memory})
        mounts.append({"name": volume_name, "mountPath": folder})
    return volumes, mounts


def _engine_container(plan: LaunchPlan, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "vllm",
        "image": plan.image,
        "command": [_escape(word) for word in plan.entrypoint],
        "args": [_escape(word) for word in _on_loopback(plan.arguments)],
        "env": [{"name": key, "value": _escape(value)} for key, value in plan.environment.items()],
    }
    if plan.gpus:
        gpus = {GPU: str(_gpu_count(plan))}
        container["resources"] = {"limits": gpus, "requests": gpus}
    return container | {"securityContext": CONFINED, "volumeMounts": mounts, **_engine_probes(plan)}


def _gateway_container(plan: LaunchPlan, gateway: Gateway) -> dict[str, Any]:
    user, _, group = (gateway.user or planned.IMAGE_USER).partition(":")
    return {
        "name": "gateway",
        "image": gateway.image,
        "command": ["nginx", "-e", "stderr", "-c", f"{CONFIG_FOLDER}/{CONFIG}"],
        "ports": [{"name": PORT, "containerPort": planned.PORT}],
        "securityContext": {
            **CONFINED,
            "runAsNonRoot": True,
            "runAsUser": int(user),
            "runAsGroup": int(group or user),
        },
        "volumeMounts": [
            {"name": "gateway", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "access", "mountPath": planned.FOLDER, "readOnly": True},
            {"name": "gateway-memory", "mountPath": "/tmp"},
        ],
        "readinessProbe": _health_probe(plan, "ready"),
        "livenessProbe": _health_probe(plan, "live"),
    }


def _on_loopback(arguments: tuple[str, ...]) -> list[str]:
    """Make the engine listen on the loopback address, which only containers of its pod reach."""
    words = list(arguments)
    words[words.index("--host") + 1] = "127.0.0.1"
    return words


def _health_probe(plan: LaunchPlan, route: str) -> dict[str, Any]:
    """Return a probe of one of the gateway's health routes, which need no key."""
    scheme = "HTTPS" if plan.gateway and plan.gateway.tls else "HTTP"
    check = {"path": f"/v1/health/{route}", "port": planned.PORT, "scheme": scheme}
    return {"httpGet": check, "periodSeconds": 10, "timeoutSeconds": 10}


def _engine_probes(plan: LaunchPlan) -> dict[str, Any]:
    """Return compose's health check in the container as probes of start-up and life.

    Not through the gateway, whose end must not end the engine. The engine is ended after three minutes without
    an answer: /health runs next to everything else in the API server, and a busy one answers late.
    """
    if plan.healthcheck is None:
        return {}
    probe = {
        "exec": {"command": list(plan.healthcheck.command)},
        "timeoutSeconds": plan.healthcheck.timeout_s,
    }
    return {
        "startupProbe": {**probe, "periodSeconds": 10, "failureThreshold": _start_timeout_s(plan) // 10},
        "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 9},
    }


def _start_timeout_s(plan: LaunchPlan) -> int:
    if plan.healthcheck is None:
        return plan.startup_timeout_s
    return max(plan.startup_timeout_s, plan.healthcheck.start_period_s)


def _host_volume(volume_name: str, mount: BindMount) -> dict[str, Any]:
    """Return a hostPath volume: a missing source is an error, except for a cache, which may be new."""
    if isinstance(mount, PatchMount):
        kind = "File"
    elif mount.read_only:
        kind = "Directory"
    else:
        kind = "DirectoryOrCreate"
    return {"name": volume_name, "hostPath": {"path": mount.source, "type": kind}}


def _user(plan: LaunchPlan) -> dict[str, Any]:
    if plan.user is None:
        return {}
    user, _, group = plan.user.partition(":")
    ids = {"runAsUser": int(user)}
    if group:
        ids["runAsGroup"] = int(group)
    return ids


def _gpu_count(plan: LaunchPlan) -> int:
    """Return the number of GPUs to request. Kubernetes has no `all`: then the plan's ranks need one each."""
    if plan.gpus and plan.gpus.count != "all":
        return plan.gpus.count
    return plan.ranks


def _kubernetes_size(size: str) -> str:
    """Return `16g` as `16Gi`."""
    return size[:-1] + _UNITS[size[-1]]


def _escape(text: str) -> str:
    return text.replace("$", "$$")
