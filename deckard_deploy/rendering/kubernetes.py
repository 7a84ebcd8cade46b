"""LaunchPlan -> a Deployment, a Service and a NetworkPolicy for one node that has the weights and the GPUs.

As confined as the compose file: no root that can be written, no capability, no way out, and nobody in but pods with a
label. Kubernetes resolves `$(NAME)` in commands, arguments and variables and takes `$$` for `$`
(kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container).
"""

import re
from typing import Any

import yaml

from deckard_deploy import __version__
from deckard_deploy.planning.plan import BindMount, LaunchPlan, PatchMount

ACCESS_LABEL = "deckard.access"
GPU = "nvidia.com/gpu"  # NVIDIA's device plugin
PORT = "http"
_UNITS = {"g": "Gi", "m": "Mi"}


def render_kubernetes(plan: LaunchPlan) -> str:
    """The manifests. Raises ValueError for a plan that shares the host's network or memory, or has no image."""
    if plan.image is None or plan.compatibility or plan.container.network == "host" or plan.container.ipc == "host":
        raise ValueError(f"{plan.deployment} does not run confined in a pod")
    head = (
        f"# {plan.model} on {plan.profile}, {plan.engine}\n"
        f"# Rendered by deckard-deploy {__version__} from plan {plan.hash}. The node must have what `hostPath` names:\n"
        "# `deckard-deploy pull` and `deckard-deploy patches build` make it there.\n"
        f"# A pod that may ask carries the label {ACCESS_LABEL}: {plan.deployment}.\n"
    )
    return head + yaml.safe_dump_all(manifests(plan), sort_keys=False, allow_unicode=True, width=10_000)


def manifests(plan: LaunchPlan) -> list[dict[str, Any]]:
    """The same as data."""
    labels = {"app.kubernetes.io/name": "deckard-deploy", "app.kubernetes.io/instance": plan.deployment}
    named = {"name": name(plan), "labels": {**labels, "deckard.plan": plan.hash}}
    selected = {"matchLabels": labels}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # the GPUs hold one engine, not an old and a new one
        "progressDeadlineSeconds": _patience_s(plan) + 60,
        "selector": selected,
        "template": {"metadata": {"labels": named["labels"]}, "spec": _pod(plan)},
    }
    service = {"selector": labels, "ports": [{"name": PORT, "port": plan.port, "targetPort": PORT}]}
    caller = {"podSelector": {"matchLabels": {ACCESS_LABEL: plan.deployment}}}
    policy = {
        "podSelector": selected,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [caller], "ports": [{"port": plan.container_port}]}],
        "egress": [],
    }
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": service},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": named, "spec": policy},
    ]


def name(plan: LaunchPlan) -> str:
    """A name that a Service may have (RFC 1035): letters, digits and dashes, 63 at most."""
    return re.sub("[^a-z0-9-]", "-", f"deckard-{plan.deployment}")[:63].rstrip("-")


def _pod(plan: LaunchPlan) -> dict[str, Any]:
    mounts = plan.all_mounts
    volumes = [_host_volume(mount, number) for number, mount in enumerate(mounts)]
    seen = [
        {"name": f"host-{number}", "mountPath": mount.target, "readOnly": mount.read_only}
        for number, mount in enumerate(mounts)
    ]
    scratch = {**dict.fromkeys(plan.scratch, ""), **({"/dev/shm": _size(plan)} if plan.container.shm_size else {})}  # noqa: S108  the container's own
    for number, (folder, size) in enumerate(scratch.items()):
        limit = {"sizeLimit": size} if size else {}
        volumes.append({"name": f"memory-{number}", "emptyDir": {"medium": "Memory", **limit}})
        seen.append({"name": f"memory-{number}", "mountPath": folder})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called vllm would set VLLM_PORT, which vLLM reads (envs.py)
        "terminationGracePeriodSeconds": plan.container.stop_grace_period_s,
        **({"nodeSelector": {"kubernetes.io/arch": plan.platform.rpartition("/")[2]}} if plan.platform else {}),
        "securityContext": {**_user(plan), "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(plan, seen)],
        "volumes": volumes,
    }


def _container(plan: LaunchPlan, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    gpus = {GPU: str(_gpus(plan))}
    confined = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return {
        "name": "vllm",
        "image": plan.image,
        "command": [_escaped(word) for word in plan.entrypoint],
        "args": [_escaped(word) for word in plan.arguments],
        "env": [{"name": key, "value": _escaped(value)} for key, value in plan.environment.items()],
        "ports": [{"name": PORT, "containerPort": plan.container_port}],
        **({"resources": {"limits": gpus, "requests": gpus}} if plan.gpus else {}),
        "securityContext": confined,
        "volumeMounts": mounts,
        **_probes(plan),
    }


def _probes(plan: LaunchPlan) -> dict[str, Any]:
    """Liveness as compose has it; until it first holds, as long as the profile is patient."""
    check = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 10, "timeoutSeconds": 10}
    return {
        "startupProbe": {**check, "failureThreshold": _patience_s(plan) // 10},
        "livenessProbe": {**check, "failureThreshold": 3},
        "readinessProbe": check,
    }


def _patience_s(plan: LaunchPlan) -> int:
    return max(plan.startup_timeout_s, plan.healthcheck.start_period_s if plan.healthcheck else 0)


def _host_volume(mount: BindMount, number: int) -> dict[str, Any]:
    """What has to be there already: a missing one is an error, not a new empty folder."""
    kind = "File" if isinstance(mount, PatchMount) else "Directory"
    return {"name": f"host-{number}", "hostPath": {"path": mount.source, "type": kind}}


def _user(plan: LaunchPlan) -> dict[str, Any]:
    if plan.user is None:
        return {}
    user, _, group = plan.user.partition(":")
    return {"runAsUser": int(user), **({"runAsGroup": int(group)} if group else {})}


def _gpus(plan: LaunchPlan) -> int:
    """Kubernetes has no word for all of them: as many as the plan is split over."""
    if plan.gpus and plan.gpus.count != "all":
        return plan.gpus.count
    words = plan.arguments
    return int(words[words.index("--tensor-parallel-size") + 1]) if "--tensor-parallel-size" in words else 1


def _size(plan: LaunchPlan) -> str:
    size = plan.container.shm_size or ""
    return size[:-1] + _UNITS[size[-1]]


def _escaped(text: str) -> str:
    return text.replace("$", "$$")
