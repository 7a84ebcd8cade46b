"""What the host is judged for: the part of a plan and its profile that rules and probes ask for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import HubRepository, ModelSpec
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import VISIBLE_GPUS


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model that the plan needs on this host; no `repo` when this tool writes it itself."""

    model: str
    folder: Path
    size_gb: float
    repo: str | None


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where things are kept on this host."""

    weights: Path
    caches: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """All defaults: no profile was named. Then `needs_…` is None, nobody knows yet."""

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
    utilization: float = 0.9  # vLLM's default (config/cache.py:41 of 0.19.1)
    batched_tokens: int | None = None
    image: str | None = None
    vllm_version: str | None = None
    weights: tuple[Weights, ...] = ()
    patches: tuple[str, ...] = ()
    patched_inside: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    port: int | None = None
    host_network: bool = False
    keyed: bool = False  # a gateway asks every client for a key
    restart: str | None = None
    running: bool = False

    @property
    def unified(self) -> bool:
        """CPU and GPU share the memory."""
        return self.memory == "unified"


def target_of(resolved: Resolved, plan: LaunchPlan, *, models: Path, running: bool = False) -> Target:
    """The target of a plan. `running`: the deployment is up, so port, memory and GPU processes are its own."""
    hardware, docker = resolved.profile.hardware, plan.runtime == "docker"
    # Somebody's own launch line has the model in a folder of theirs, which it may write to, and no caches.
    own = Path(resolved.compatibility.model_source).expanduser() if resolved.compatibility else None
    caches = () if own else tuple(Path(mount.source) for mount in plan.mounts if not mount.read_only)
    utilization, batched = (
        resolved.serve.get(key) for key in ("gpu-memory-utilization", "max-num-batched-tokens")
    )
    return Target(
        folders=Folders(weights=own or models, caches=caches),
        profile=plan.profile,
        needs_gpu=plan.gpus is not None,
        needs_docker=docker,
        architecture=None if hardware.architecture == "any" else hardware.architecture,
        gpu=hardware.gpu if plan.gpus else None,
        compute_capability=hardware.compute_capability,
        gpu_count=plan.gpus.count if plan.gpus and isinstance(plan.gpus.count, int) else hardware.gpu_count,
        gpu_ids=plan.gpus.ids if plan.gpus else _visible(plan),
        memory=hardware.memory,
        memory_gib=hardware.memory_gib,
        utilization=float(utilization) if isinstance(utilization, int | float) else 0.9,
        batched_tokens=batched if isinstance(batched, int) else None,
        image=plan.image,
        vllm_version=plan.vllm_version,
        weights=tuple(
            _weights(model, own or models / model.name)
            for model in (resolved.model, resolved.drafter)
            if model and model.weights
        ),
        patches=(*(p.name for p in plan.patches), *((plan.plugin.name,) if plan.plugin else ())),
        patched_inside=docker and resolved.engine.patch_set is None and resolved.engine.plugin is None,
        environment=plan.environment,
        address=plan.address,
        port=plan.port,
        keyed=plan.gateway is not None and plan.gateway.exposed,
        host_network=docker and plan.container.network == "host",
        restart=plan.container.restart if docker else None,
        running=running,
    )


def _visible(plan: LaunchPlan) -> tuple[str, ...]:
    """A process sees the host's GPUs by the variable alone."""
    return tuple(filter(None, plan.environment.get(VISIBLE_GPUS, "").split(",")))


def _weights(model: ModelSpec, folder: Path) -> Weights:
    repo = model.weights.repo if isinstance(model.weights, HubRepository) else None
    return Weights(model=model.name, folder=folder, size_gb=model.size_gb, repo=repo)
