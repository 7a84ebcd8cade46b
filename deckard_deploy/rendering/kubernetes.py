"""LaunchPlan -> Deployment, Service, NetworkPolicy and ConfigMap for one node that has the weights and the GPUs.

As confined as the compose file: no root that can be written, no capability, no way out, and nobody in but pods with a
label. The gateway is a second container of the pod, and vLLM listens on the loopback address that only these two share.
Keys are a Secret that the user makes: nothing secret is rendered. Kubernetes resolves `$(NAME)` in commands, arguments
and variables and takes `$$` for `$`
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
# running/gateway/files.py.
ACCESS, CERTIFICATE, CERTIFICATE_KEY = "access.conf", "certificate.pem", "certificate.key"
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_UNITS = {"g": "Gi", "m": "Mi"}


class _Plain(yaml.SafeDumper):
    """Without anchors, and text of several lines as such: a person reads it."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002  PyYAML's signature
        return True


_Plain.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def render_kubernetes(plan: LaunchPlan) -> str:
    """The manifests. Raises ValueError for a plan that shares the host's network or memory, or has no image."""
    shares = plan.container.network == "host" or plan.container.ipc == "host"
    if plan.gateway is None or plan.image is None or plan.compatibility or shares:
        raise ValueError(f"{plan.deployment} does not run confined in a pod")
    if plan.gpus and plan.gpus.ids:
        raise ValueError("Kubernetes chooses the GPUs itself: environment.CUDA_VISIBLE_DEVICES cannot be set")
    files = " ".join(f"--from-file={file}" for file in secrets(plan))
    makers = [
        "pull",
        *(["patches build"] if plan.patches else []),
        *(["patches wheel"] if plan.plugin else []),
    ]
    head = (
        f"# {plan.model} on {plan.profile}, {plan.engine}\n"
        f"# Rendered by deckard-deploy {__version__} from plan {plan.hash}. The node must have what `hostPath` names:\n"
        f"# {' and '.join(f'`deckard-deploy {maker}`' for maker in makers)} make it there; a cache makes itself.\n"
        f"# A pod that may ask carries the label {ACCESS_LABEL}: {plan.deployment}, and has a key:\n"
        f"# deckard-deploy keys access > {ACCESS}\n"
        f"# kubectl create secret generic {access_name(plan)} {files}\n"
    )
    return head + yaml.dump_all(
        manifests(plan), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=10_000
    )


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
        "ingress": [{"from": [caller], "ports": [{"port": planned.PORT}]}],
        "egress": [],
    }
    config = {CONFIG: render_gateway(plan, in_pod=True)}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": service},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": named, "spec": policy},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": config},
    ]


def name(plan: LaunchPlan) -> str:
    """A name that a Service may have (RFC 1035): letters, digits and dashes, 63 at most."""
    return re.sub("[^a-z0-9-]", "-", f"deckard-{plan.deployment}")[:63].rstrip("-")


def access_name(plan: LaunchPlan) -> str:
    """Of the Secret with the files that the gateway reads."""
    return f"{name(plan)}-access"


def secrets(plan: LaunchPlan) -> list[str]:
    """The files that it has to hold."""
    with_tls = plan.gateway is not None and plan.gateway.tls
    return [ACCESS, *([CERTIFICATE, CERTIFICATE_KEY] if with_tls else [])]


def _pod(plan: LaunchPlan) -> dict[str, Any]:
    mounts = plan.all_mounts
    volumes = [_host_volume(mount, number) for number, mount in enumerate(mounts)]
    seen = [
        {"name": f"host-{number}", "mountPath": mount.target, "readOnly": mount.read_only}
        for number, mount in enumerate(mounts)
    ]
    scratch = {
        **dict.fromkeys(plan.scratch, ""),
        **({"/dev/shm": _size(plan)} if plan.container.shm_size else {}),
    }
    for number, (folder, size) in enumerate(scratch.items()):
        limit = {"sizeLimit": size} if size else {}
        volumes.append({"name": f"memory-{number}", "emptyDir": {"medium": "Memory", **limit}})
        seen.append({"name": f"memory-{number}", "mountPath": folder})
    # Of nobody else in the pod; the gateway's user is not the one that owns what Kubernetes writes.
    volumes += [
        {"name": "gateway", "configMap": {"name": name(plan)}},
        {"name": "access", "secret": {"secretName": access_name(plan), "defaultMode": 0o444}},
        {"name": "gateway-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
    ]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called vllm would set VLLM_PORT, which vLLM reads (envs.py)
        "terminationGracePeriodSeconds": plan.container.stop_grace_period_s,
        **(
            {"nodeSelector": {"kubernetes.io/arch": plan.platform.rpartition("/")[2]}}
            if plan.platform
            else {}
        ),
        "securityContext": {**_user(plan), "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(plan, seen), *([_gateway(plan, plan.gateway)] if plan.gateway else [])],
        "volumes": volumes,
    }


def _container(plan: LaunchPlan, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    gpus = {GPU: str(_gpus(plan))}
    return {
        "name": "vllm",
        "image": plan.image,
        "command": [_escaped(word) for word in plan.entrypoint],
        "args": [_escaped(word) for word in _on_loopback(plan.arguments)],
        "env": [{"name": key, "value": _escaped(value)} for key, value in plan.environment.items()],
        **({"resources": {"limits": gpus, "requests": gpus}} if plan.gpus else {}),
        "securityContext": CONFINED,
        "volumeMounts": mounts,
        **_probes(plan),
    }


def _gateway(plan: LaunchPlan, gateway: Gateway) -> dict[str, Any]:
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
        "readinessProbe": _asked(plan, "ready"),
        "livenessProbe": _asked(plan, "live"),
    }


def _on_loopback(arguments: tuple[str, ...]) -> list[str]:
    """Containers of a pod share one network: only there may nobody but the gateway reach the engine."""
    words = list(arguments)
    words[words.index("--host") + 1] = "127.0.0.1"
    return words


def _asked(plan: LaunchPlan, what: str) -> dict[str, Any]:
    """A question that the gateway answers without a key."""
    scheme = "HTTPS" if plan.gateway and plan.gateway.tls else "HTTP"
    check = {"path": f"/v1/health/{what}", "port": planned.PORT, "scheme": scheme}
    return {"httpGet": check, "periodSeconds": 10, "timeoutSeconds": 10}


def _probes(plan: LaunchPlan) -> dict[str, Any]:
    """Liveness as compose has it, through the gateway; until it first holds, as long as the profile is patient."""
    check = _asked(plan, "ready")
    return {
        "startupProbe": {**check, "failureThreshold": _patience_s(plan) // 10},
        "livenessProbe": {**check, "failureThreshold": 3},
    }


def _patience_s(plan: LaunchPlan) -> int:
    return max(plan.startup_timeout_s, plan.healthcheck.start_period_s if plan.healthcheck else 0)


def _host_volume(mount: BindMount, number: int) -> dict[str, Any]:
    """What is read has to be there already: a missing one is an error, not a new empty folder. A cache may be new."""
    kind = (
        "File" if isinstance(mount, PatchMount) else "Directory" if mount.read_only else "DirectoryOrCreate"
    )
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
