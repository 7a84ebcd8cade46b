"""The target that a host is judged for: the part of a plan and its profile that rules and probes use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import HubRepository
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import VISIBLE_GPUS, model_folder

DEFAULT_UTILIZATION = 0.9  # vLLM's (config/cache.py:41 of 0.19.1)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model that the plan needs on this host. repo: None when this tool writes the model itself."""

    model: str
    folder: Path
    size_gb: float
    repo: str | None


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The folders of weights and caches on this host."""

    weights: Path
    caches: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The requirements of a plan. All defaults: no profile was named, and `needs_…` is None for unknown."""

    folders: Folders
    profile: str | None = None
    needs_gpu: bool | None = None
    needs_docker: bool | None = None
    architecture: Literal["amd64", "arm64"] | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    gpu_count: int = 1
    gpu_ids: tuple[str, ...] = ()  # numbers or UUIDs; empty: the host's first `gpu_count`
    memory: Literal["unified", "discrete", "host"] | None = None
    memory_gib: float | None = None
    utilization: float = DEFAULT_UTILIZATION
    batched_tokens: int | None = None
    image: str | None = None
    vllm_version: str | None = None
    weights: tuple[Weights, ...] = ()
    patches: tuple[str, ...] = ()
    patches_in_image: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    port: int | None = None
    host_network: bool = False
    requires_key: bool = False  # a gateway asks every client for a key
    restart: str | None = None
    # Of a private environment: GB that it takes if it is not installed yet, and for each shared library that no wheel
    # has the command that installs it.
    engine_gb: float = 0.0
    libraries: Mapping[str, str] = field(default_factory=dict)
    running: bool = False
    holds_port: bool = False  # the running deployment listens at this address and port
    engines_beside: int = 0  # of other deployments of this tool, which count in the memory plan

    @property
    def unified(self) -> bool:
        """CPU and GPU share the memory."""
        return self.memory == "unified"


def target_for_plan(resolved: Resolved, plan: LaunchPlan, *, models: Path, running: bool = False) -> Target:
    """Return the target of a plan. running: the deployment is up, so its processes are its own."""
    hardware = resolved.profile.hardware
    docker = plan.runtime == "docker"
    needs_gpu = (
        resolved.engine.gpu and hardware.gpu_count > 0
    )  # a process reserves none, and needs it all the same
    own_folder = _own_model_folder(resolved)
    return Target(
        folders=Folders(weights=own_folder or models, caches=() if own_folder else _caches(plan)),
        profile=plan.profile,
        needs_gpu=needs_gpu,
        needs_docker=docker,
        architecture=None if hardware.architecture == "any" else hardware.architecture,
        gpu=hardware.gpu if needs_gpu else None,
        compute_capability=hardware.compute_capability,
        gpu_count=_gpu_count(resolved, plan),
        gpu_ids=plan.gpus.ids if plan.gpus else _visible_gpus(plan),
        memory=hardware.memory,
        memory_gib=hardware.memory_gib,
        utilization=_utilization(resolved),
        batched_tokens=_batched_tokens(resolved),
        image=plan.image,
        vllm_version=plan.vllm_version,
        weights=_weights(resolved, models),
        patches=_patch_names(plan),
        patches_in_image=docker and resolved.engine.patch_set is None and resolved.engine.plugin is None,
        environment=plan.environment,
        address=plan.address,
        port=plan.port,
        requires_key=plan.gateway is not None and plan.gateway.exposed,
        host_network=docker and plan.container.network == "host",
        restart=plan.container.restart if docker else None,
        running=running,
    )


def _own_model_folder(resolved: Resolved) -> Path | None:
    """Return the model folder of a user's own launch line, which is writable and has no caches next to it."""
    if resolved.compatibility is None:
        return None
    return Path(resolved.compatibility.model_source).expanduser()


def _caches(plan: LaunchPlan) -> tuple[Path, ...]:
    return tuple(Path(mount.source) for mount in plan.mounts if not mount.read_only)


def _gpu_count(resolved: Resolved, plan: LaunchPlan) -> int:
    if plan.gpus and isinstance(plan.gpus.count, int):
        return plan.gpus.count
    return resolved.profile.hardware.gpu_count


def _visible_gpus(plan: LaunchPlan) -> tuple[str, ...]:
    """Return the GPUs of a plain process, which only this variable limits."""
    return tuple(filter(None, plan.environment.get(VISIBLE_GPUS, "").split(",")))


def _utilization(resolved: Resolved) -> float:
    value = resolved.serve.get("gpu-memory-utilization")
    if isinstance(value, int | float):
        return float(value)
    return DEFAULT_UTILIZATION


def _batched_tokens(resolved: Resolved) -> int | None:
    value = resolved.serve.get("max-num-batched-tokens")
    return value if isinstance(value, int) else None


def _weights(resolved: Resolved, models: Path) -> tuple[Weights, ...]:
    """Return the models of the plan that have weights, a drafter's included."""
    found = []
    for model in (resolved.model, resolved.drafter):
        if model is None or model.weights is None:
            continue
        repo = model.weights.repo if isinstance(model.weights, HubRepository) else None
        folder = _own_model_folder(resolved) or Path(model_folder(model, PurePosixPath(models)))
        found.append(Weights(model=model.name, folder=folder, size_gb=model.size_gb, repo=repo))
    return tuple(found)


def _patch_names(plan: LaunchPlan) -> tuple[str, ...]:
    names = [patch.name for patch in plan.patches]
    if plan.plugin:
        names.append(plan.plugin.name)
    return tuple(names)
