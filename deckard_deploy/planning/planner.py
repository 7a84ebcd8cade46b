"""Resolved choice + host paths -> LaunchPlan."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import ModelSpec, Serve, rank_count
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.arguments import serve_arguments
from deckard_deploy.planning.gateway import SOCKET, plan_gateway
from deckard_deploy.planning.plan import (
    BindMount,
    ChosenGpus,
    Gateway,
    Gpus,
    Healthcheck,
    LaunchPlan,
    PatchMount,
)

CONTAINER_PORT = 8000
HEALTHCHECK_TIMEOUT_S = 10
PLUGINS = PurePosixPath("/opt/deckard")  # in the container
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
_GPU_ID = re.compile(r"[0-9]{1,4}|GPU-[0-9a-f-]{36}")  # nvidia-smi -L
OVERLAY = "overlay"  # beside the patched files, as `patches build --overlay` makes it


class HostPaths(NamedTuple):
    """Where weights, caches and patched files lie on the host that will run the plan; absolute.

    owner: `uid:gid` of whose they are; None where that is not known. nginx: the host's own, for the process runtime.
    """

    models: PurePosixPath
    caches: PurePosixPath
    patches: PurePosixPath
    deployments: PurePosixPath
    owner: str | None = None
    nginx: PurePosixPath | None = None


# What `render` writes when no folders are named: the same on every machine that renders.
DEFAULT_PATHS = HostPaths(
    models=PurePosixPath("/srv/deckard/models"),
    caches=PurePosixPath("/srv/deckard/cache"),
    patches=PurePosixPath("/srv/deckard/patches"),
    deployments=PurePosixPath("/srv/deckard/deployments"),
)


class PatchedFile(NamedTuple):
    """A patch that the plan needs: the module's path below site-packages, and the hash of the patched file."""

    name: str
    target: str
    sha256: str


def build_plan(resolved: Resolved, paths: HostPaths = DEFAULT_PATHS) -> LaunchPlan:
    """Decide everything that runs. Pure; every later step reads only the result."""
    in_container = resolved.engine.runtime == "docker"
    publish, container = resolved.publish, resolved.container
    on_host_network = in_container and container.network == "host"
    port = publish.port if on_host_network or not in_container else CONTAINER_PORT
    folder = paths.deployments / resolved.name / "gateway"
    gateway = plan_gateway(resolved, folder=folder, nginx=paths.nginx, owner=paths.owner)
    return LaunchPlan(
        deployment=resolved.name,
        profile=resolved.profile.name,
        model=resolved.model.name,
        engine=resolved.engine.name,
        vllm_version=resolved.engine.vllm_version,
        runtime=resolved.engine.runtime,
        image=resolved.engine.image,
        platform=_platform(resolved),
        arguments=_arguments(resolved, paths, _listening(resolved, gateway, port)),
        environment=_environment(resolved, paths),
        mounts=_mounts(resolved, paths) if in_container else (),
        scratch=_scratch(resolved) if in_container else (),
        user=paths.owner
        if in_container and resolved.engine.user == "caller" and not resolved.compatibility
        else None,
        gpus=_gpus(resolved),
        container=container,
        container_name=resolved.compatibility.container_name
        if resolved.compatibility
        else f"deckard-{resolved.name}",
        healthcheck=_healthcheck(resolved, port) if in_container and not resolved.compatibility else None,
        gateway=gateway,
        served_name=resolved.model.served_name,
        address=publish.expose or publish.address,
        port=publish.port,
        container_port=port,
        startup_timeout_s=resolved.startup_timeout_s,
        compatibility=resolved.compatibility.name if resolved.compatibility else None,
        given_up=resolved.disabled_protections,
    )


def with_patches(
    plan: LaunchPlan, files: Sequence[PatchedFile], *, root: PurePosixPath, vllm_root: str
) -> LaunchPlan:
    """The plan with `files` over the engine's own.

    root: the host's folder of patches. vllm_root: the folder of the vllm package in the image. In a container each file
    is a read-only bind mount; the process runtime puts an overlay of the package first on PYTHONPATH instead, and
    leaves site-packages alone. The folder is named by the files' hashes, so that another build changes the plan and
    an older release keeps its own files.
    """
    if not files:
        return plan
    digest = hashlib.sha256("".join(sorted(file.sha256 for file in files)).encode()).hexdigest()[:12]
    folder = root / f"vllm-{plan.vllm_version}-{digest}"
    mounts = tuple(
        PatchMount(
            name=file.name,
            module=file.target.removesuffix(".py").replace("/", "."),
            sha256=file.sha256,
            source=str(folder / f"{file.name}_patched.py"),
            target=str(PurePosixPath(vllm_root).parent / file.target),
        )
        for file in files
    )
    environment = plan.environment
    if plan.runtime == "process":
        environment = {**environment, "PYTHONPATH": str(folder / OVERLAY)}
    return plan.model_copy(update={"patches": mounts, "environment": environment})


def with_plugin(plan: LaunchPlan, name: str, *, wheel: str, sha256: str, root: PurePosixPath) -> LaunchPlan:
    """The plan with plugin `name` in every process of the engine: one read-only file, first on PYTHONPATH.

    wheel: its file name. VLLM_PLUGINS names it and nothing else, so that what the image sets cannot turn it off;
    raises BadInputError when it is set to something that does.
    """
    module = wheel.partition("-")[0]
    asked = plan.environment.get("VLLM_PLUGINS")
    if asked is not None and module not in asked.split(","):
        raise BadInputError(
            f"environment.VLLM_PLUGINS is {asked!r}, which turns off plugin {module} that this checkpoint needs",
            hint=f"leave it out, or add the name: VLLM_PLUGINS={','.join(filter(None, (asked, module)))}",
        )
    source = str(root / f"{name}-{sha256[:12]}" / wheel)
    target = str(PLUGINS / wheel) if plan.runtime == "docker" else source
    mount = PatchMount(name=name, module=module, sha256=sha256, source=source, target=target)
    environment = {"VLLM_PLUGINS": module, **plan.environment, "PYTHONPATH": target}
    return plan.model_copy(update={"plugin": mount, "environment": environment})


def patch_folder(plan: LaunchPlan) -> PurePosixPath:
    """The folder that `with_patches` chose, for a plan that has patches."""
    return PurePosixPath(plan.patches[0].source).parent


def model_folder(resolved: Resolved, paths: HostPaths) -> PurePosixPath:
    """Where the host keeps the target's weights."""
    return paths.models / resolved.model.name


def drafter_folder(drafter: ModelSpec, paths: HostPaths) -> PurePosixPath:
    """Where the host keeps a drafter's weights."""
    return paths.models / drafter.name


def _arguments(resolved: Resolved, paths: HostPaths, listening: tuple[str, ...]) -> tuple[str, ...]:
    schema = option_schema(resolved.engine.option_schema)
    options = serve_arguments({**resolved.serve, **_speculative(resolved, paths)}, schema)
    model = _model_target(resolved, paths)
    name = ("--served-model-name", resolved.model.served_name)
    if resolved.compatibility:
        return (model, *name, *options)
    return (model, *listening, *name, *options)


def _listening(resolved: Resolved, gateway: Gateway | None, port: int) -> tuple[str, ...]:
    """Where vLLM listens, as options."""
    if gateway and gateway.program:
        return ("--uds", SOCKET)
    # Inside the container vLLM listens on all of the container's own addresses, which only the gateway reaches.
    bridged = resolved.engine.runtime == "docker" and resolved.container.network == "bridge"
    address = "0.0.0.0" if bridged else resolved.publish.address
    return ("--host", address, "--port", str(port))


def _speculative(resolved: Resolved, paths: HostPaths) -> Serve:
    """The drafter as one option; its keys are those of vllm/config/speculative.py."""
    drafter = resolved.drafter
    if drafter is None or drafter.speculative is None:
        return {}
    settings = drafter.speculative.model_dump(exclude_none=True)
    if drafter.weights is None:
        return {"speculative-config": settings}
    in_container = resolved.engine.runtime == "docker"
    folder = f"/models/{drafter.name}" if in_container else str(drafter_folder(drafter, paths))
    return {"speculative-config": {"model": folder, **settings}}


def _model_target(resolved: Resolved, paths: HostPaths) -> str:
    if resolved.compatibility:
        return resolved.compatibility.model_mount
    if resolved.engine.runtime == "process":
        return str(model_folder(resolved, paths))
    return f"/models/{resolved.model.name}"


def _environment(resolved: Resolved, paths: HostPaths) -> dict[str, str]:
    environment = dict(resolved.environment)
    if resolved.engine.runtime == "process":
        environment.setdefault("VLLM_CACHE_ROOT", str(paths.caches / resolved.engine.name / "vllm"))
        return dict(sorted(environment.items()))
    # They are the ones that are reserved, and in the container they begin at 0.
    environment.pop(VISIBLE_GPUS, None)
    if resolved.engine.home and not resolved.compatibility:
        # The image need not know the user: PyTorch asks for a name (getpass.getuser) where it keeps compiled code.
        environment |= {"HOME": resolved.engine.home, "USER": "vllm"}
    return dict(sorted(environment.items()))


def _mounts(resolved: Resolved, paths: HostPaths) -> tuple[BindMount, ...]:
    if (kept := resolved.compatibility) is not None:
        return (
            BindMount(
                source=kept.model_source, target=kept.model_mount, read_only=kept.model_mount_read_only
            ),
        )
    weights = [BindMount(source=str(model_folder(resolved, paths)), target=_model_target(resolved, paths))]
    if resolved.drafter and resolved.drafter.weights:
        source = str(drafter_folder(resolved.drafter, paths))
        weights.append(BindMount(source=source, target=f"/models/{resolved.drafter.name}"))
    return (*weights, *_cache_mounts(resolved, paths))


def _cache_mounts(resolved: Resolved, paths: HostPaths) -> tuple[BindMount, ...]:
    # Compiled kernels are only valid for the engine that made them, so each engine has its own caches.
    # vLLM: envs.py VLLM_CACHE_ROOT; Triton: knobs.py cache.dir; FlashInfer: jit/env.py FLASHINFER_WORKSPACE_DIR.
    home, caches = resolved.engine.home, paths.caches / resolved.engine.name
    if home is None:
        return ()
    folders = {"vllm": ".cache/vllm", "triton": ".triton/cache", "flashinfer": ".cache/flashinfer"}
    return tuple(
        BindMount(source=str(caches / name), target=f"{home}/{folder}", read_only=False)
        for name, folder in folders.items()
    )


def _scratch(resolved: Resolved) -> tuple[str, ...]:
    if resolved.compatibility:
        return ()
    home = resolved.engine.home
    # The folders between home and the caches too: docker would make them for root alone.
    below_home = (home, f"{home}/.cache", f"{home}/.triton") if home else ()
    return ("/tmp", *below_home)


def _platform(resolved: Resolved) -> str | None:
    architecture = resolved.profile.hardware.architecture
    if resolved.engine.runtime == "process" or architecture == "any" or resolved.compatibility:
        return None
    return f"linux/{architecture}"


def _gpus(resolved: Resolved) -> Gpus | ChosenGpus | None:
    hardware = resolved.profile.hardware
    if resolved.engine.runtime == "process" or hardware.gpu_count == 0:
        return None
    ranks = rank_count(resolved.serve)
    if (chosen := resolved.environment.get(VISIBLE_GPUS)) is not None:
        return ChosenGpus(ids=_chosen(chosen, ranks))
    # A unified machine has one GPU and gives all it has, as the model card does; `all` would hide that more are wanted.
    # Of a machine with eight, `all` would take seven too many: a GPU for each rank.
    if hardware.memory == "unified" and ranks <= hardware.gpu_count:
        return Gpus(count="all")
    return Gpus(count=max(hardware.gpu_count, ranks))


def _chosen(text: str, ranks: int) -> tuple[str, ...]:
    """What CUDA would make of the variable; a container has no other way to be given certain GPUs."""
    ids = tuple(text.split(","))
    if not all(map(_GPU_ID.fullmatch, ids)) or len(set(ids)) < len(ids):
        raise BadInputError(
            f"environment.{VISIBLE_GPUS} {text[:80]!r}: numbers or UUIDs of GPUs, with commas, were expected",
            hint="nvidia-smi -L",
        )
    if len(ids) < ranks:
        raise BadInputError(
            f"environment.{VISIBLE_GPUS} names {len(ids)} GPU, and {ranks} ranks need one each"
        )
    return ids


def _healthcheck(resolved: Resolved, port: int) -> Healthcheck:
    # python3 is in every vLLM image, curl is not; http.client goes through no proxy, urllib would. The start period
    # must outlast the slowest start, or compose's `--wait` gives up on a server that is still loading (vLLM does not
    # listen before the engine is ready).
    published = resolved.publish.address
    own = resolved.container.network == "host" and published not in ("0.0.0.0", "::")
    host = published if own else "127.0.0.1"
    probe = (
        f'import http.client as h; c = h.HTTPConnection("{host}", {port}, timeout={HEALTHCHECK_TIMEOUT_S - 1}); '
        'c.request("GET", "/health"); raise SystemExit(c.getresponse().status != 200)'
    )
    return Healthcheck(
        command=("python3", "-c", probe),
        interval_s=10,
        timeout_s=HEALTHCHECK_TIMEOUT_S,
        retries=3,
        start_period_s=max(900, resolved.startup_timeout_s),
    )
