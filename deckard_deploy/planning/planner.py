"""Turn a resolved choice and the host's paths into a LaunchPlan."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import LocalFolder, ModelSpec, Serve, rank_count
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.arguments import serve_arguments
from deckard_deploy.planning.gateway import REPLICAS_FOLDER, ROOT, SOCKET, plan_gateway
from deckard_deploy.planning.plan import (
    BindMount,
    CdiGpus,
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
# vLLM binds the socket as it is (create_server_unix_socket in entrypoints/openai/api_server.py of 0.19.1 and
# entrypoints/launchers/launcher.py of 0.32.0): one that a killed engine has left would end the next. nginx is another
# user, whom the folders above admit alone.
_ON_SOCKET = (
    "import os, sys; socket = sys.argv[1]; os.path.lexists(socket) and os.unlink(socket); os.umask(0); "
    'os.execvp("vllm", ["vllm", "serve", *sys.argv[2:]])'
)
OVERLAY = "overlay"  # next to the patched files; `patches build --overlay` creates it


class HostPaths(NamedTuple):
    """Absolute folders of weights, caches and patched files on the host that will run the plan.

    owner: `uid:gid` that owns them; None where it is not known. nginx: the host's program, for the process
    runtime. rootless: root in a container is the owner, and no other user in it can be. sockets: a front reaches
    replicas in containers by sockets in its folder, so that it is told of none that is away; else by their network.
    """

    models: PurePosixPath
    caches: PurePosixPath
    patches: PurePosixPath
    deployments: PurePosixPath
    owner: str | None = None
    nginx: PurePosixPath | None = None
    rootless: bool = False
    sockets: bool = False


# `render` writes these folders by default: the same on every machine that renders.
DEFAULT_PATHS = HostPaths(
    models=PurePosixPath("/srv/deckard/models"),
    caches=PurePosixPath("/srv/deckard/cache"),
    patches=PurePosixPath("/srv/deckard/patches"),
    deployments=PurePosixPath("/srv/deckard/deployments"),
)


class PatchedFile(NamedTuple):
    """A patch of the plan. target: the module's path below site-packages. sha256: of the patched file."""

    name: str
    target: str
    sha256: str


def build_plan(resolved: Resolved, paths: HostPaths = DEFAULT_PATHS) -> LaunchPlan:
    """Return the plan of a resolved choice. Pure: every later step reads only the result.

    Raises BadInputError for publish settings that need a missing gateway, and for wrong GPU ids.
    """
    in_container = resolved.engine.runtime == "docker"
    if resolved.role == "replica":  # two engines that compile at the same time share no cache
        paths = paths._replace(caches=paths.caches / resolved.name)
    publish = resolved.publish
    kept = resolved.compatibility
    port = _engine_port(resolved)
    socket = _replica_socket(resolved) if paths.sockets else None
    gateway = plan_gateway(
        resolved,
        folder=paths.deployments / resolved.name / "gateway",
        nginx=paths.nginx,
        owner=paths.owner,
        rootless=paths.rootless,
    )
    return LaunchPlan(
        deployment=resolved.name,
        profile=resolved.profile.name,
        model=resolved.model.name,
        engine=resolved.engine.name,
        vllm_version=resolved.engine.vllm_version,
        runtime=resolved.engine.runtime,
        image=resolved.engine.image,
        platform=_platform(resolved),
        entrypoint=("python3", "-c", _ON_SOCKET, socket) if socket else ("vllm", "serve"),
        arguments=_arguments(resolved, paths, _listen_options(resolved, gateway, port, socket)),
        environment=_environment(resolved, paths),
        mounts=_mounts(resolved, paths) + _socket_mounts(resolved, paths, socket) if in_container else (),
        scratch=_scratch_folders(resolved) if in_container else (),
        user=_container_user(resolved, paths),
        gpus=_gpus(resolved),
        container=resolved.container,
        container_name=kept.container_name if kept else f"deckard-{resolved.name}",
        healthcheck=_healthcheck(resolved, port, socket) if in_container and not kept else None,
        gateway=gateway,
        served_name=resolved.model.served_name,
        address=publish.expose or publish.address,
        port=publish.port,
        container_port=port,
        startup_timeout_s=resolved.startup_timeout_s,
        compatibility=kept.name if kept else None,
        role=resolved.role,
        given_up=resolved.disabled_protections,
    )


def with_patches(
    plan: LaunchPlan, files: Sequence[PatchedFile], *, root: PurePosixPath, vllm_root: str
) -> LaunchPlan:
    """Return the plan with the patched `files` over the engine's own.

    root: the host's folder of patches. vllm_root: the folder of the vllm package in the image. In a container
    each file is a read-only bind mount. The process runtime leaves site-packages alone: PYTHONPATH names an
    overlay of the package first. The files' hashes name the folder, so another build changes the plan, and an
    older release keeps its own files.
    """
    if not files:
        return plan
    digest = hashlib.sha256("".join(sorted(file.sha256 for file in files)).encode()).hexdigest()[:12]
    folder = root / f"vllm-{plan.vllm_version}-{digest}"
    mounts = []
    for file in files:
        mount = PatchMount(
            name=file.name,
            module=file.target.removesuffix(".py").replace("/", "."),
            sha256=file.sha256,
            source=str(folder / f"{file.name}_patched.py"),
            target=str(PurePosixPath(vllm_root).parent / file.target),
        )
        mounts.append(mount)
    environment = plan.environment
    if plan.runtime == "process":
        environment = {**environment, "PYTHONPATH": str(folder / OVERLAY)}
    return plan.model_copy(update={"patches": tuple(mounts), "environment": environment})


def with_plugin(plan: LaunchPlan, name: str, *, wheel: str, sha256: str, root: PurePosixPath) -> LaunchPlan:
    """Return the plan with plugin `name` in every engine process: one read-only file, first on PYTHONPATH.

    wheel: its file name. VLLM_PLUGINS names this plugin alone, so settings of the image cannot turn it off.
    Raises BadInputError when the plan sets VLLM_PLUGINS without it.
    """
    module = wheel.partition("-")[0]
    requested = plan.environment.get("VLLM_PLUGINS")
    if requested is not None and module not in requested.split(","):
        plugins = f"{requested},{module}" if requested else module
        raise BadInputError(
            f"environment.VLLM_PLUGINS is {requested!r}, "
            f"which turns off plugin {module} that this checkpoint needs",
            hint=f"leave it out, or add the name: VLLM_PLUGINS={plugins}",
        )
    source = str(root / f"{name}-{sha256[:12]}" / wheel)
    target = str(PLUGINS / wheel) if plan.runtime == "docker" else source
    mount = PatchMount(name=name, module=module, sha256=sha256, source=source, target=target)
    environment = {"VLLM_PLUGINS": module, **plan.environment, "PYTHONPATH": target}
    return plan.model_copy(update={"plugin": mount, "environment": environment})


def with_request_filter(plan: LaunchPlan, file: str, *, sha256: str, root: PurePosixPath) -> LaunchPlan:
    """Return the plan with the filter of requests in the engine's API server, last on PYTHONPATH.

    file: the module's file name. Behind a gateway the filter knows each client's key.
    """
    module = file.removesuffix(".py")
    source = root / f"request-filter-{sha256[:12]}" / file
    target = PLUGINS / file if plan.runtime == "docker" else source
    mount = PatchMount(
        name="request-filter", module=module, sha256=sha256, source=str(source), target=str(target)
    )
    path = [plan.environment.get("PYTHONPATH"), str(target.parent)]
    environment = {**plan.environment, "PYTHONPATH": ":".join(filter(None, path))}
    name = "KeyedFilter" if plan.gateway else "Filter"
    arguments = (*plan.arguments, "--middleware", f"{module}.{name}")
    return plan.model_copy(
        update={"request_filter": mount, "environment": environment, "arguments": arguments}
    )


def visible_gpus(plan: LaunchPlan) -> tuple[str, ...]:
    """Return the GPUs that a plan names; none: the machine's first ones, or all."""
    if plan.gpus and plan.gpus.ids:
        return plan.gpus.ids
    return tuple(filter(None, plan.environment.get(VISIBLE_GPUS, "").split(",")))


def patch_folder(plan: LaunchPlan) -> PurePosixPath:
    """Return the folder that `with_patches` chose, for a plan with patches."""
    return PurePosixPath(plan.patches[0].source).parent


def model_folder(model: ModelSpec, models: PurePosixPath) -> PurePosixPath:
    """Return the host's folder of a model's weights. models: the folder of all that this tool keeps."""
    if isinstance(model.weights, LocalFolder):
        return PurePosixPath(model.weights.folder)
    return models / model.name


def _engine_port(resolved: Resolved) -> int:
    """Return the port that vLLM listens on: the published one, or the container's own behind a bridge."""
    if resolved.engine.runtime == "docker" and resolved.container.network != "host":
        return CONTAINER_PORT
    return resolved.publish.port


def _container_user(resolved: Resolved, paths: HostPaths) -> str | None:
    if resolved.engine.runtime != "docker" or resolved.engine.user != "caller" or resolved.compatibility:
        return None
    return ROOT if paths.rootless else paths.owner


def _arguments(resolved: Resolved, paths: HostPaths, listen_options: tuple[str, ...]) -> tuple[str, ...]:
    schema = option_schema(resolved.engine.option_schema)
    options = serve_arguments({**resolved.serve, **_speculative(resolved, paths)}, schema)
    model = _model_path(resolved, paths)
    name = ("--served-model-name", resolved.model.served_name)
    if resolved.compatibility:
        return (model, *name, *options)
    return (model, *listen_options, *name, *options)


def _replica_socket(resolved: Resolved) -> str | None:
    """Return the socket of a replica in a container, None for another engine."""
    if resolved.role != "replica" or resolved.engine.runtime != "docker":
        return None
    return f"{REPLICAS_FOLDER}/{resolved.name.rpartition('-')[2]}/{SOCKET}"


def replicas_folder(front: str, paths: HostPaths) -> PurePosixPath:
    """Return the host's folder with the sockets of the replicas of a front."""
    return paths.deployments / front / "replicas"


def _socket_mounts(resolved: Resolved, paths: HostPaths, socket: str | None) -> tuple[BindMount, ...]:
    if socket is None:
        return ()
    front, _, number = resolved.name.rpartition("-")
    source = str(replicas_folder(front, paths) / number)
    return (BindMount(source=source, target=str(PurePosixPath(socket).parent), read_only=False),)


def _listen_options(
    resolved: Resolved, gateway: Gateway | None, port: int, socket: str | None
) -> tuple[str, ...]:
    """Return the options with the address that vLLM listens on."""
    if socket:
        return ("--uds", socket)
    if gateway and gateway.program:
        return ("--uds", SOCKET)
    address = resolved.publish.address
    if resolved.engine.runtime == "docker" and resolved.container.network == "bridge":
        # All of the container's own addresses: only the gateway reaches them.
        address = "0.0.0.0"
    return ("--host", address, "--port", str(port))


def _speculative(resolved: Resolved, paths: HostPaths) -> Serve:
    """Return the drafter as one option; its keys are those of vllm/config/speculative.py."""
    drafter = resolved.drafter
    if drafter is None or drafter.speculative is None:
        return {}
    settings = drafter.speculative.model_dump(exclude_none=True)
    if drafter.weights is None:
        return {"speculative-config": settings}
    if resolved.engine.runtime == "docker":
        folder = f"/models/{drafter.name}"
    else:
        folder = str(model_folder(drafter, paths.models))
    return {"speculative-config": {"model": folder, **settings}}


def _model_path(resolved: Resolved, paths: HostPaths) -> str:
    """Return the target's folder, as the engine sees it."""
    if resolved.compatibility:
        return resolved.compatibility.model_mount
    if resolved.engine.runtime == "process":
        return str(model_folder(resolved.model, paths.models))
    return f"/models/{resolved.model.name}"


def _environment(resolved: Resolved, paths: HostPaths) -> dict[str, str]:
    environment = dict(resolved.environment)
    if resolved.engine.runtime == "process":
        environment.setdefault("VLLM_CACHE_ROOT", str(paths.caches / resolved.engine.name / "vllm"))
        return dict(sorted(environment.items()))
    # The device reservation selects these GPUs, and inside the container they are numbered from 0.
    environment.pop(VISIBLE_GPUS, None)
    if resolved.engine.home and not resolved.compatibility:
        # PyTorch needs a user name for compiled code (getpass.getuser), and the image may not know the user.
        environment |= {"HOME": resolved.engine.home, "USER": "vllm"}
    return dict(sorted(environment.items()))


def _mounts(resolved: Resolved, paths: HostPaths) -> tuple[BindMount, ...]:
    kept = resolved.compatibility
    if kept is not None:
        model = BindMount(
            source=kept.model_source, target=kept.model_mount, read_only=kept.model_mount_read_only
        )
        return (model,)
    weights = [
        BindMount(source=str(model_folder(resolved.model, paths.models)), target=_model_path(resolved, paths))
    ]
    if resolved.drafter and resolved.drafter.weights:
        source = str(model_folder(resolved.drafter, paths.models))
        weights.append(BindMount(source=source, target=f"/models/{resolved.drafter.name}"))
    return (*weights, *_cache_mounts(resolved, paths))


def _cache_mounts(resolved: Resolved, paths: HostPaths) -> list[BindMount]:
    # Compiled kernels are only valid for the engine that compiled them, so each engine has its own caches.
    # vLLM: envs.py VLLM_CACHE_ROOT; Triton: knobs.py cache.dir; FlashInfer: jit/env.py
    # FLASHINFER_WORKSPACE_DIR.
    home = resolved.engine.home
    if home is None:
        return []
    caches = paths.caches / resolved.engine.name
    # A variable that moves a cache moves its mount: the cache lives on.
    environment = resolved.environment
    folders = {
        "vllm": environment.get("VLLM_CACHE_ROOT", f"{home}/.cache/vllm"),
        "triton": environment.get("TRITON_CACHE_DIR", f"{home}/.triton/cache"),
        "flashinfer": f"{environment.get('FLASHINFER_WORKSPACE_BASE', home)}/.cache/flashinfer",
    }
    if _compiles_humming(resolved):
        folders["humming"] = f"{home}/.humming/cache"
    mounts = []
    for name, folder in folders.items():
        mounts.append(BindMount(source=str(caches / name), target=folder, read_only=False))
    return mounts


def _compiles_humming(resolved: Resolved) -> bool:
    """Return True if vLLM compiles Humming's kernels, which takes 70 s on an H200.

    vLLM 0.32.0 and later prefer Humming on compute capability 9.0 alone (model_executor/layers/quantization/utils/
    humming/priority.py:11). Its cache is in the home folder: humming-kernels 0.1.19, utils/jit.py:188.
    """
    prefers = resolved.profile.hardware.compute_capability == "9.0"
    return prefers and resolved.engine.is_at_least("0.32.0")


def _scratch_folders(resolved: Resolved) -> tuple[str, ...]:
    home = resolved.engine.home
    if resolved.compatibility:
        return ()
    if home is None:
        return ("/tmp",)
    # The folders between home and the caches too: docker would create them for root alone.
    folders = ("/tmp", home, f"{home}/.cache", f"{home}/.triton")
    if _compiles_humming(resolved):
        return (*folders, f"{home}/.humming")
    return folders


def _platform(resolved: Resolved) -> str | None:
    architecture = resolved.profile.hardware.architecture
    if resolved.engine.runtime == "process" or architecture == "any" or resolved.compatibility:
        return None
    return f"linux/{architecture}"


def _gpus(resolved: Resolved) -> Gpus | ChosenGpus | CdiGpus | None:
    gpus = _reserved_gpus(resolved)
    if gpus is None or resolved.gpu_driver != "cdi":
        return gpus
    return CdiGpus(count=gpus.count, ids=gpus.ids)


def _reserved_gpus(resolved: Resolved) -> Gpus | ChosenGpus | None:
    hardware = resolved.profile.hardware
    if resolved.engine.runtime == "process" or hardware.gpu_count == 0:
        return None
    ranks = rank_count(resolved.serve)
    chosen = resolved.environment.get(VISIBLE_GPUS)
    if chosen is not None:
        return ChosenGpus(ids=parse_gpu_ids(chosen, ranks))
    # A unified machine has one GPU, and gets `all` as on the model card. On a machine with eight GPUs `all` would
    # reserve seven too many: reserve one per rank.
    if hardware.memory == "unified":
        return Gpus(count="all")
    return Gpus(count=max(hardware.gpu_count, ranks))


def parse_gpu_ids(text: str, ranks: int) -> tuple[str, ...]:
    """Parse CUDA_VISIBLE_DEVICES as CUDA does: a container can be given certain GPUs in no other way.

    Raises BadInputError for other values, and for fewer GPUs than `ranks`.
    """
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


def _healthcheck(resolved: Resolved, port: int, socket: str | None) -> Healthcheck:
    host = "127.0.0.1"
    published = resolved.publish.address
    if resolved.container.network == "host" and published not in ("0.0.0.0", "::"):
        host = published
    # Every vLLM image has python3, but not curl. urllib would use a proxy; http.client uses none.
    connect = "import http.client as h; "
    if socket:
        connect += "import socket as s; u = s.socket(s.AF_UNIX); "
        connect += f'u.settimeout({HEALTHCHECK_TIMEOUT_S - 1}); u.connect("{socket}"); '
        connect += 'c = h.HTTPConnection("vllm"); c.sock = u; '
    else:
        connect += f'c = h.HTTPConnection("{host}", {port}, timeout={HEALTHCHECK_TIMEOUT_S - 1}); '
    probe = connect + 'c.request("GET", "/health"); raise SystemExit(c.getresponse().status != 200)'
    return Healthcheck(
        command=("python3", "-c", probe),
        interval_s=10,
        timeout_s=HEALTHCHECK_TIMEOUT_S,
        retries=3,
        # vLLM does not listen before its engine is ready. compose's `--wait` gives up on a server that is
        # still loading when the start period ends, so this period outlasts the slowest start.
        start_period_s=max(900, resolved.startup_timeout_s),
    )
