"""Render Kubernetes manifests from a LaunchPlan, for a cluster with GPUs and a claim that holds the weights.

Deployment, Service, NetworkPolicy and ConfigMap.

The pod is as confined as the compose file: a read-only root, no capabilities, no egress, and ingress only
from pods with a label and from namespaces that are named. The gateway is a second container of the pod, and
vLLM listens on the loopback address that only the two share. Keys are a Secret that the user creates, so no
secret is rendered. Kubernetes resolves `$(NAME)` in commands, arguments and variables and reads `$$` as `$`
(kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container).
"""

import re
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import yaml

from deckard_deploy import __version__
from deckard_deploy.planning import gateway as planned
from deckard_deploy.planning.plan import Gateway, LaunchPlan, PatchMount
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
_SCRATCH_LIMIT = "2Gi"  # as compose.SCRATCH_OPTIONS has it
# Each file of a plan with the hash that it must have. A missing file would become a folder (subPath).
_CHECK = """import hashlib, pathlib, sys
for name, wanted in zip(sys.argv[1::2], sys.argv[2::2]):
    path = pathlib.Path(name)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != wanted:
        sys.exit(f"{name} is {found}, not {wanted}")
"""


class Cluster(NamedTuple):
    """What a cluster has and the plan does not know.

    root: the folder of the plan's paths that the claim holds. claim: a PersistentVolumeClaim; None: by the deployment's
    name. admitted: namespaces whose pods reach the gateway, as of an ingress controller or Prometheus. gpu_products:
    values of the label nvidia.com/gpu.product. cpu, memory: of the engine's container. pull_secret: for the registry.
    """

    root: str = "/srv/deckard"
    claim: str | None = None
    admitted: tuple[str, ...] = ()
    gpu_products: tuple[str, ...] = ()
    runtime_class: str | None = None
    cpu: str | None = None
    memory: str | None = None
    pull_secret: str | None = None


ANY_CLUSTER = Cluster()


class _ReadableDumper(yaml.SafeDumper):
    """A dumper without anchors, and with literal blocks for text of several lines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002  PyYAML's signature
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_ReadableDumper.add_representer(str, _represent_text)


def render_kubernetes(plan: LaunchPlan, cluster: Cluster = ANY_CLUSTER) -> str:
    """Return the manifests as YAML.

    Raises ValueError for a plan that shares the host's network or memory, has no image, or mounts a path outside of the
    cluster's root.
    """
    shares = plan.container.network == "host" or plan.container.ipc == "host"
    if plan.gateway is None or plan.image is None or plan.compatibility or shares:
        raise ValueError(f"{plan.deployment} does not run confined in a pod")
    if plan.gpus and plan.gpus.ids:
        raise ValueError("Kubernetes chooses the GPUs itself: environment.CUDA_VISIBLE_DEVICES cannot be set")
    body = yaml.dump_all(
        manifests(plan, cluster), Dumper=_ReadableDumper, sort_keys=False, allow_unicode=True, width=10_000
    )
    return _comment(plan, cluster) + body


def _comment(plan: LaunchPlan, cluster: Cluster) -> str:
    """Return the comment on top: the commands that fill the claim and make the Secret."""
    files = " ".join(f"--from-file={file}" for file in secret_files(plan))
    commands = ["`deckard-deploy pull --state-dir DIR`"]
    if plan.patches:
        commands.append(
            f"`deckard-deploy patches build --output DIR/{_in_claim(_patches_of(plan), cluster)}`"
        )
    if plan.plugin:
        folder = PurePosixPath(plan.plugin.source).parent
        form = f" --lm-head {plan.lm_head}" if plan.lm_head else ""
        commands.append(
            f"`deckard-deploy patches wheel --output DIR/{_in_claim(str(folder), cluster)}{form}`"
        )
    if plan.request_filter:
        folder = PurePosixPath(plan.request_filter.source).parent
        commands.append(f"`deckard-deploy patches filter --output DIR/{_in_claim(str(folder), cluster)}`")
    return (
        f"# {plan.model} on {plan.profile}, {plan.engine}\n"
        f"# Rendered by deckard-deploy {__version__} from plan {plan.hash}.\n"
        f"# The claim {claim_name(plan, cluster)} holds what {' and '.join(commands)} write:\n"
        "# copy DIR there (kubectl cp, to a pod that mounts the claim). Caches appear by themselves.\n"
        f"# A pod that can use the API has the label {ACCESS_LABEL}: {plan.deployment}, or is in a namespace that "
        "`--admit` names, and has a key:\n"
        f"# deckard-deploy keys access > {ACCESS}\n"
        f"# kubectl create secret generic {secret_name(plan)} {files}\n"
        "# Prometheus asks /metrics with the tool's own key, keys/own.key in the state directory, as its\n"
        f"# authorization.credentials: kubectl create secret generic {resource_name(plan)}-metrics "
        "--from-file=key=keys/own.key\n"
    )


def _patches_of(plan: LaunchPlan) -> str:
    return str(PurePosixPath(plan.patches[0].source).parent)


def claim_name(plan: LaunchPlan, cluster: Cluster) -> str:
    """Return the name of the claim that holds weights, patched files and caches."""
    return cluster.claim or resource_name(plan)


def _in_claim(path: str, cluster: Cluster) -> str:
    """Return a path of the plan relative to the claim. Raises ValueError for one outside of its root."""
    if not path.startswith(f"{cluster.root}/"):
        raise ValueError(f"{path} is not in {cluster.root}, which the claim holds")
    return path.removeprefix(f"{cluster.root}/")


def manifests(plan: LaunchPlan, cluster: Cluster = ANY_CLUSTER) -> list[dict[str, Any]]:
    """Return the manifests as data."""
    labels = {"app.kubernetes.io/name": "deckard-deploy", "app.kubernetes.io/instance": plan.deployment}
    named = {"name": resource_name(plan), "labels": {**labels, "deckard.plan": plan.hash}}
    selected = {"matchLabels": labels}
    config = {CONFIG: render_gateway(plan, in_pod=True)}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # the GPUs hold one engine, not an old and a new one
        "progressDeadlineSeconds": _start_timeout_s(plan) + 60,
        "selector": selected,
        "template": {
            # A changed nginx.conf rolls the pod; a ConfigMap alone does not.
            "metadata": {
                "labels": named["labels"],
                "annotations": {"checksum/nginx.conf": _digest(config[CONFIG])},
            },
            "spec": _pod(plan, cluster),
        },
    }
    service = {"selector": labels, "ports": [{"name": PORT, "port": plan.port, "targetPort": PORT}]}
    clients: list[dict[str, Any]] = [{"podSelector": {"matchLabels": {ACCESS_LABEL: plan.deployment}}}]
    for namespace in cluster.admitted:
        # A label that Kubernetes itself sets (kubernetes.io/docs/reference/labels-annotations-taints).
        clients.append({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}})
    policy = {
        "podSelector": selected,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": clients, "ports": [{"port": planned.PORT}]}],
        "egress": [],
    }
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


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _pod(plan: LaunchPlan, cluster: Cluster) -> dict[str, Any]:
    volumes, mounts = _engine_volumes(plan, cluster)
    # The engine mounts none of the gateway's volumes. Mode 444, because the gateway's user does not own the
    # files that Kubernetes writes.
    volumes += [
        {"name": "gateway", "configMap": {"name": resource_name(plan)}},
        {"name": "access", "secret": {"secretName": secret_name(plan), "defaultMode": 0o444}},
        {"name": "gateway-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
    ]
    containers = [_engine_container(plan, mounts, cluster)]
    if plan.gateway:
        containers.append(_gateway_container(plan, plan.gateway))
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called vllm would set VLLM_PORT, which vLLM reads (envs.py)
        "terminationGracePeriodSeconds": plan.container.stop_grace_period_s,
    }
    pod |= _placement(plan, cluster)
    if plan.built:
        pod["initContainers"] = [_check_container(plan, plan.built, mounts)]
    return pod | {
        "securityContext": {**_user(plan), "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
        "volumes": volumes,
    }


def _placement(plan: LaunchPlan, cluster: Cluster) -> dict[str, Any]:
    """Return the settings that select a node and its runtime."""
    placement: dict[str, Any] = {}
    if plan.platform:
        placement["nodeSelector"] = {"kubernetes.io/arch": plan.platform.rpartition("/")[2]}
    if cluster.gpu_products:
        # NVIDIA's GPU feature discovery sets the label.
        product = {"key": "nvidia.com/gpu.product", "operator": "In", "values": list(cluster.gpu_products)}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [product]}]}
        placement["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    if plan.gpus:
        # The taint that keeps other pods off GPU nodes (kubernetes.io, "Taints and Tolerations", special hardware).
        placement["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if cluster.runtime_class:
        placement["runtimeClassName"] = cluster.runtime_class
    if cluster.pull_secret:
        placement["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    return placement


def _check_container(
    plan: LaunchPlan, checks: tuple[PatchMount, ...], mounts: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a container that ends with an error, before the engine starts, if a file in the claim is another one."""
    words = [word for mount in checks for word in (mount.target, mount.sha256)]
    targets = {mount.target for mount in checks}
    return {
        "name": "files",
        "image": plan.image,
        "command": ["python3", "-c", _escape(_CHECK)],
        "args": [_escape(word) for word in words],
        "securityContext": CONFINED,
        "volumeMounts": [mount for mount in mounts if mount["mountPath"] in targets],
    }


def _engine_volumes(plan: LaunchPlan, cluster: Cluster) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the pod's volumes for the engine, and the engine's mounts of them."""
    claim = {"claimName": claim_name(plan, cluster)}
    volumes: list[dict[str, Any]] = [{"name": "state", "persistentVolumeClaim": claim}]
    mounts: list[dict[str, Any]] = []
    for mount in plan.all_mounts:
        sub_path = _in_claim(mount.source, cluster)
        mounts.append(
            {"name": "state", "mountPath": mount.target, "subPath": sub_path, "readOnly": mount.read_only}
        )
    size_limits = dict.fromkeys(plan.scratch, _SCRATCH_LIMIT)
    if plan.container.shm_size:
        size_limits["/dev/shm"] = _kubernetes_size(plan.container.shm_size)
    for number, (folder, size_limit) in enumerate(size_limits.items()):
        volume_name = f"memory-{number}"
        volumes.append({"name": volume_name, "emptyDir": {"medium": "Memory", "sizeLimit": size_limit}})
        mounts.append({"name": volume_name, "mountPath": folder})
    return volumes, mounts


def _engine_container(plan: LaunchPlan, mounts: list[dict[str, Any]], cluster: Cluster) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "vllm",
        "image": plan.image,
        "command": [_escape(word) for word in plan.entrypoint],
        "args": [_escape(word) for word in _on_loopback(plan.arguments)],
        "env": [{"name": key, "value": _escape(value)} for key, value in plan.environment.items()],
    }
    resources = _resources(plan, cluster)
    if resources["requests"]:
        container["resources"] = resources
    return container | {"securityContext": CONFINED, "volumeMounts": mounts, **_engine_probes(plan)}


def _resources(plan: LaunchPlan, cluster: Cluster) -> dict[str, dict[str, str]]:
    """Return requests and limits. A limit of CPU would only slow the engine down; memory includes /dev/shm."""
    both: dict[str, str] = {}
    if cluster.memory:
        both["memory"] = cluster.memory
    if plan.gpus:
        both[GPU] = str(_gpu_count(plan))
    cpu = {"cpu": cluster.cpu} if cluster.cpu else {}
    return {"limits": both, "requests": {**cpu, **both}}


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
