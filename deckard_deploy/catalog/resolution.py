"""Resolve profile, model, engine and the user's changes into one choice."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from math import ceil
from typing import Any, Literal

from pydantic import JsonValue

from deckard_deploy.catalog import library, safety, variables
from deckard_deploy.catalog.known_faults import Parts, refuse_known_faults
from deckard_deploy.catalog.listing import names
from deckard_deploy.catalog.option_schema import OptionSchema, option_schema
from deckard_deploy.catalog.specs import (
    PARALLEL_OPTIONS,
    Compatibility,
    Container,
    Deployment,
    EngineSpec,
    Environment,
    HardwareProfile,
    LmHead,
    ModelSpec,
    Publish,
    Replicas,
    Serve,
    rank_count,
    task_of,
)
from deckard_deploy.catalog.translation import migrate_options
from deckard_deploy.errors import BadInputError
from deckard_deploy.system.suggestion import closest

# What a machine with unified memory keeps for itself; `doctor` asks for it too, and has the source (rule footprint).
UNIFIED_RESERVE_GIB = 8.0


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The complete choice before the host's paths are known: the input of planning.

    notes: what the user's settings cost, one line each.
    """

    name: str
    profile: HardwareProfile
    model: ModelSpec
    drafter: ModelSpec | None
    engine: EngineSpec
    serve: Serve
    environment: Environment
    container: Container
    publish: Publish
    startup_timeout_s: int
    compatibility: Compatibility | None
    disabled_protections: tuple[str, ...] = ()
    gateway_image: str | None = None
    notes: tuple[str, ...] = ()
    gateway: Literal["nginx", "off"] | None = None
    gpu_driver: Literal["nvidia", "cdi"] | None = None
    lm_head: LmHead | None = None
    replicas: Replicas | None = None
    role: Literal["engine", "replica"] = "engine"  # planning/replicas.py
    port_is_set: bool = True  # by the user; otherwise another one may be chosen next to other deployments
    asked: str = ""  # what the user has asked for, before the catalog's settings: JSON, to be compared


def resolve(
    deployment: Deployment,
    *,
    profile: HardwareProfile,
    compatibility: Compatibility | None = None,
    model: ModelSpec | None = None,
) -> Resolved:
    """Merge all sources of settings. model: one that the catalog does not have, in place of the named one.

    Precedence, weakest first: the protections (safety.py), the profile, the model, `--compat` (which replaces
    these three), deckard.yaml, the command line (`--set` and the named options; `catalog.overrides` puts both
    into `deployment`). Mappings (serve, environment, container) merge key by key; a `null` removes a key.

    Raises BadInputError when a name is unknown, the parts do not fit together, or the engine's vLLM lacks a
    requested option or variable.
    """
    if compatibility:
        _check_compatibility(compatibility, deployment, profile)
        if deployment.replicas is not None:
            raise BadInputError(
                f"--compat {compatibility.name} is the line of one engine: take --replicas out"
            )
    _check_publish(deployment.publish)
    base = compatibility or profile
    model = model or library.model(deployment.model or base.model)
    drafter = _choose_drafter(
        deployment, model, None if compatibility else _default_drafter(deployment, profile, model)
    )
    engine = _choose_engine(deployment, profile, model, drafter, base.engine)
    schema = option_schema(engine.option_schema)
    if compatibility:
        serve = _merge(compatibility.serve, deployment.serve)
        environment = _merge(compatibility.environment, deployment.environment)
    else:
        drafter_serve = drafter.serve if drafter else {}
        serve = _merge(
            safety.safe_serve(schema), profile.serve, model.serve | drafter_serve, deployment.serve
        )
        environment = _merge(safety.safe_environment(schema), profile.environment, deployment.environment)
        serve, environment = migrate_options(engine.option_schema, serve, environment)
    if not compatibility:
        serve = _with_pooling_share(serve, profile, model, deployment)
    container = _container(base.container, deployment)
    _check_parts(profile, model, engine)
    _check_gateway(deployment, engine)
    _check_options(schema, serve, model)
    _check_ranks(serve, model, drafter)
    _check_gpus(serve, profile)
    _check_replicas(deployment, profile, engine, serve)
    _check_lm_head(
        deployment.lm_head, Parts(profile, model, drafter, engine, serve, environment), compatibility
    )
    notes = _check_environment(schema, environment, engine, profile, users=deployment.environment)
    if not compatibility:
        notes += refuse_known_faults(Parts(profile, model, drafter, engine, serve, environment))
        notes += _notes_on_settings(deployment, profile, serve)
    disabled = safety.disabled_protections(serve, environment, container, schema)
    if not compatibility:
        _check_safety(disabled, serve, deployment)
    return Resolved(
        name=deployment.name or _default_name(profile, serve),
        profile=profile,
        model=model,
        drafter=drafter,
        engine=engine,
        serve=serve,
        environment=environment,
        container=container,
        publish=compatibility.publish if compatibility else deployment.publish,
        startup_timeout_s=deployment.startup_timeout_s or profile.startup_timeout_s,
        compatibility=compatibility,
        disabled_protections=tuple(protection.setting for protection in disabled),
        gateway_image=deployment.gateway_image,
        notes=notes,
        gateway=deployment.gateway,
        gpu_driver=deployment.gpu_driver,
        lm_head=deployment.lm_head,
        replicas=deployment.replicas,
        port_is_set=compatibility is not None or "port" in deployment.publish.model_fields_set,
    )


def _default_name(profile: HardwareProfile, serve: Serve) -> str:
    """Return the name of a deployment that has none: the profile's, with the task of one that stands next to a chat."""
    task = task_of(serve.get("runner"), serve.get("convert"))
    if task == "generate":
        return profile.name
    return f"{profile.name[:57]}-{task}"


# GiB of a GPU for an engine of vectors, next to its weights: 6.7 for the engine (planning/memory/parts.py, the upper
# end), and 2 for a KV cache, which few such models have (a choice).
_POOLING_GIB = 8.7


def _with_pooling_share(
    serve: Serve, profile: HardwareProfile, model: ModelSpec, deployment: Deployment
) -> Serve:
    """Return the options with a small share of the GPU for an engine of vectors; the profile's is for a chat model."""
    name = "gpu-memory-utilization"
    memory_gib = profile.hardware.memory_gib
    if task_of(serve.get("runner"), serve.get("convert")) == "generate" or memory_gib is None:
        return serve
    if name in deployment.serve or name in model.serve:
        return serve
    share = (model.size_gb * 1e9 / 2**30 + _POOLING_GIB) / memory_gib
    return {**serve, name: min(0.9, ceil(100 * share) / 100)}


def _check_publish(publish: Publish) -> None:
    """Raise BadInputError for an exposed address other than by `expose`, and for half a certificate."""
    if not ip_address(publish.address).is_loopback:
        raise BadInputError(
            f"publish.address {publish.address} is not a loopback address: other machines would reach it",
            hint=f"--expose {publish.address}",
        )
    if (publish.certificate is None) != (publish.certificate_key is None):
        raise BadInputError(
            "publish.certificate and publish.certificate_key belong together: give both or none"
        )
    if publish.certificate and publish.tls is False:
        raise BadInputError("publish.tls is false, but publish.certificate is given: keep one")


def _check_gateway(deployment: Deployment, engine: EngineSpec) -> None:
    """Raise BadInputError for a container without a gateway, which would publish the engine's own routes."""
    if deployment.gateway == "off" and engine.runtime == "docker":
        raise BadInputError(
            f"gateway is off, and {engine.name} runs in docker, where nginx is a second container",
            hint="take gateway out",
        )


def _check_compatibility(
    compatibility: Compatibility, deployment: Deployment, profile: HardwareProfile
) -> None:
    """Raise BadInputError for settings that conflict with the fixed folder, names and address of the line."""
    requested = {
        "profile": (profile.name, compatibility.profile),
        "model": (deployment.model, compatibility.model),
        "engine": (deployment.engine, compatibility.engine),
        "drafter": (deployment.drafter, "none"),
    }
    for what, (value, fixed) in requested.items():
        if value not in (None, fixed):
            raise BadInputError(f"--compat {compatibility.name} is for {what} {fixed!r}, not {value!r}")
    if deployment.publish != Publish():
        raise BadInputError(f"--compat {compatibility.name} keeps its own address: take publish out")


def _choose_engine(
    deployment: Deployment,
    profile: HardwareProfile,
    model: ModelSpec,
    drafter: ModelSpec | None,
    default: str,
) -> EngineSpec:
    engine = library.engine(deployment.engine or _default_engine(profile, model, drafter, default))
    if drafter and not _can_draft(engine, drafter):
        hint = "--drafter none"
        if deployment.engine is not None:
            hint = "--drafter none, or another --engine, or leave it out"
        raise BadInputError(f"{engine.name} cannot draft with {drafter.name}", hint=hint)
    if deployment.image is None:
        return engine
    if engine.runtime == "process":
        raise BadInputError(f"image {deployment.image}: {engine.name} runs without an image")
    return engine.model_copy(update={"image": deployment.image})


def _default_engine(
    profile: HardwareProfile, model: ModelSpec, drafter: ModelSpec | None, default: str
) -> str:
    """Return the profile's engine, or the first one for this machine that loads the model and can draft."""
    first = library.engine(default)
    if _can_serve(first, model, drafter):
        return default
    for name in model.served_by or names("engines"):
        engine = library.engine(name)
        if engine.runtime != first.runtime or (engine.gpu and profile.hardware.gpu_count == 0):
            continue
        if profile.hardware.architecture not in ("any", *engine.architectures):
            continue
        if _can_serve(engine, model, drafter):
            return name
    return default


def _can_serve(engine: EngineSpec, model: ModelSpec, drafter: ModelSpec | None) -> bool:
    if model.served_by and engine.name not in model.served_by:
        return False
    return drafter is None or _can_draft(engine, drafter)


def _can_draft(engine: EngineSpec, drafter: ModelSpec) -> bool:
    if drafter.speculative is None or drafter.speculative.method not in engine.drafter_methods:
        return False
    return not drafter.served_by or engine.name in drafter.served_by


def _default_drafter(deployment: Deployment, profile: HardwareProfile, model: ModelSpec) -> str | None:
    """Return the profile's drafter where it fits the rest of the choice, which asks for none itself."""
    if profile.drafter not in model.drafters or deployment.serve.get("speculative-config") is not None:
        return None
    engine = library.engine(deployment.engine or profile.engine)
    return profile.drafter if _can_draft(engine, library.model(str(profile.drafter))) else None


def _choose_drafter(deployment: Deployment, model: ModelSpec, default: str | None) -> ModelSpec | None:
    tokens = deployment.drafter_tokens
    name = deployment.drafter or default
    if name in (None, "none"):
        if tokens is not None:
            raise BadInputError("drafter_tokens is set without a drafter: name one with --drafter")
        return None
    drafter = _find_drafter(str(name), model)
    if deployment.serve.get("speculative-config") is not None:
        raise BadInputError(
            f"--drafter {drafter.name} and serve.speculative-config exclude each other: keep one"
        )
    if tokens is None or drafter.speculative is None:
        return drafter
    speculative = drafter.speculative.model_copy(update={"num_speculative_tokens": tokens})
    changes: dict[str, Any] = {"speculative": speculative}
    if tokens != drafter.speculative.num_speculative_tokens:
        changes["measured_speedup"] = None  # it was measured with another number of tokens
    return drafter.model_copy(update=changes)


def _find_drafter(name: str, model: ModelSpec) -> ModelSpec:
    """Return the drafter of the model with this name or method. Raises BadInputError."""
    own = [library.model(each) for each in model.drafters]
    for drafter in own:
        if name == drafter.name or (drafter.speculative and name == drafter.speculative.method):
            return drafter
    known = ", ".join(drafter.name for drafter in own) or "none"
    if name in names("models") and library.model(name).role != "drafter":
        raise BadInputError(f"{name} is not a drafter; {model.name} has: {known}")
    if name not in names("models"):
        near = closest(name, [drafter.name for drafter in own]) or f"; {model.name} has: {known}"
        raise BadInputError(f"no drafter named {name[:80]!r}{near}")
    raise BadInputError(f"{name} does not draft for {model.name}; it has: {known}")


def _container(base: Container, deployment: Deployment) -> Container:
    changes = deployment.container.model_dump(exclude_unset=True)
    return Container.model_validate(_merge(base.model_dump(), changes))


def _merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge mappings, later ones over earlier ones, and leave out the keys that end as None."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    return {key: value for key, value in merged.items() if value is not None}


def _check_parts(profile: HardwareProfile, model: ModelSpec, engine: EngineSpec) -> None:
    """Raise BadInputError when profile, model and engine do not fit together."""
    if model.role != "target":
        raise BadInputError(f"{model.name} is a drafter: name it with --drafter, and a model with --model")
    if model.served_by and engine.name not in model.served_by:
        raise BadInputError(
            f"{engine.name} cannot load {model.name}; these can: {', '.join(model.served_by)}"
        )
    if model.quantization != "other" and model.quantization not in engine.quantizations:
        raise BadInputError(
            f"{engine.name} cannot load {model.quantization}; it loads: {', '.join(engine.quantizations)}"
        )
    _check_hardware(profile, engine)


def _check_hardware(profile: HardwareProfile, engine: EngineSpec) -> None:
    """Raise BadInputError when the engine does not run on the profile's hardware."""
    hardware = profile.hardware
    if hardware.architecture not in ("any", *engine.architectures):
        raise BadInputError(
            f"{engine.name} is for {', '.join(engine.architectures)}, "
            f"{profile.name} is {hardware.architecture}"
        )
    if engine.gpu and hardware.gpu_count == 0:
        without = ", ".join(name for name in names("engines") if not library.engine(name).gpu)
        raise BadInputError(f"{engine.name} needs a GPU, {profile.name} has none; without: {without}")
    capabilities = engine.compute_capabilities
    if capabilities and hardware.compute_capability not in capabilities:
        raise BadInputError(
            f"{engine.name} is built for compute capability {', '.join(capabilities)}, "
            f"{profile.name} has {hardware.compute_capability or 'no GPU'}"
        )
    if engine.runtime == "docker" and hardware.gpu_count == 0 and engine.image is None:
        raise BadInputError(f"{engine.name} has no image")


RESERVED_OPTIONS = {
    "model": "the plan names the model's folder",
    "host": "use publish.address",
    "port": "use publish.port",
    "api-key": "a key on the command line is readable by everyone on the host, and in the log",
    "hf-token": "a token on the command line is readable by everyone on the host",
    "config": "options are given here, where they are checked",
    "served-model-name": "the model spec names it",
    "uds": "clients reach the endpoint by publish.address and publish.port",
    "grpc": "the endpoint is proven and used over HTTP",
    "nnodes": "a deployment is on one machine",
    "node-rank": "a deployment is on one machine",
    "data-parallel-address": "a deployment is on one machine",
    "data-parallel-rpc-port": "a deployment is on one machine",
    "data-parallel-rank": "the endpoint is one for all ranks; set data-parallel-size",
    "data-parallel-start-rank": "a deployment is on one machine",
    "data-parallel-external-lb": "the endpoint is one for all ranks; vLLM spreads requests itself",
    "data-parallel-hybrid-lb": "the endpoint is one for all ranks; vLLM spreads requests itself",
    "headless": "an engine without a server has no endpoint to prove",
    "root-path": "the endpoint is proven and used at /v1",
    "ssl-keyfile": "the endpoint is plain HTTP on this host; put a proxy with TLS in front",
    "ssl-certfile": "the endpoint is plain HTTP on this host; put a proxy with TLS in front",
    "ssl-ca-certs": "the endpoint is plain HTTP on this host; put a proxy with TLS in front",
    # 0.32.0 writes these three into speculative-config, the only one that is checked here.
    "spec-method": "use --drafter, drafter_tokens or serve.speculative-config",
    "spec-model": "use --drafter, drafter_tokens or serve.speculative-config",
    "spec-tokens": "use --drafter, drafter_tokens or serve.speculative-config",
}


# Variables of vLLM or of an engine's list, whose value is checked too.
_CHECKED_VALUES = (
    *variables.MOUNTED_CACHES,
    "NCCL_IB_GID_INDEX",
    "CUDA_LAUNCH_BLOCKING",
    "TORCH_COMPILE_DISABLE",
)
# Everyone who may run `docker inspect` or read a rendered file reads the environment.
SECRET_VARIABLES = (
    "VLLM_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
)


def _notes_on_settings(
    deployment: Deployment, profile: HardwareProfile, serve: Mapping[str, JsonValue]
) -> tuple[str, ...]:
    """Return what the user's own image and share of the memory cost."""
    notes = []
    hardware = profile.hardware
    share = deployment.serve.get("gpu-memory-utilization")
    if share is not None and hardware.memory == "unified" and hardware.memory_gib:
        left_gib = (1 - float(str(serve["gpu-memory-utilization"]))) * hardware.memory_gib
        if left_gib < UNIFIED_RESERVE_GIB:
            notes.append(
                f"gpu-memory-utilization {share} leaves {left_gib:.1f} GiB of the unified memory to everything "
                f"else; with less than {UNIFIED_RESERVE_GIB:g} GiB the whole machine can freeze"
            )
    if deployment.image and deployment.image.endswith(":latest"):
        notes.append(
            f"image {deployment.image}: each pull may bring another release than {profile.name} plans for"
        )
    return tuple(notes)


def _check_environment(
    schema: OptionSchema,
    environment: Environment,
    engine: EngineSpec,
    profile: HardwareProfile,
    *,
    users: Iterable[str],
) -> tuple[str, ...]:
    """Return notes on variables that cost something or are in no list. Raises BadInputError for a refused one.

    users: the names that the user has set, of whose costs there are notes.
    """
    in_container = engine.runtime == "docker"
    for name in environment:
        if name in SECRET_VARIABLES:
            raise BadInputError(
                f"environment.{name} cannot be set: it is a secret, and the environment is shown"
            )
    own = {*schema.environment, *engine.environment}
    others = {name: value for name, value in environment.items() if name not in own}
    checked = {
        name: value for name, value in environment.items() if name in others or name in _CHECKED_VALUES
    }
    variables.refuse_dangerous(
        checked, in_container=in_container, capability=profile.hardware.compute_capability
    )
    notes = []
    for name in others:
        note = variables.check_library_variable(name, schema.vllm_version, own=own)
        if note:
            notes.append(note)
    requested = {name: value for name, value in checked.items() if name in users}
    return (*notes, *variables.costs_of(requested, in_container=in_container))


# They read the target's lm_head; MTP has its own (0.33.0, models/gemma4_mtp.py:449), and ngram no model.
_SHARES_LM_HEAD = ("dflash", "eagle3")


def _check_lm_head(lm_head: LmHead | None, parts: Parts, compatibility: Compatibility | None) -> None:
    """Raise BadInputError where lm_head cannot be quantized at load."""
    if lm_head is None:
        return
    reason = _lm_head_refusal(parts, compatibility)
    if reason:
        raise BadInputError(f"lm_head {lm_head}: {reason}", hint="leave lm_head out")


def _lm_head_refusal(parts: Parts, compatibility: Compatibility | None) -> str:
    """Return why lm_head cannot be quantized; "" if it can."""
    model, engine, drafter, serve = parts.model, parts.engine, parts.drafter, parts.serve
    method = drafter.speculative.method if drafter and drafter.speculative else ""
    reasons = (
        (compatibility is not None, "a line of --compat is without this project's plugin"),
        (engine.plugin is None, f"{engine.name} has no plugin; these have: {', '.join(_with_plugin())}"),
        (
            task_of(serve.get("runner"), serve.get("convert")) != "generate",
            "an engine of vectors does not use it",
        ),
        (
            model.architecture.vocabulary_size == 0,
            f"its size in {model.name} is not known, so its memory cannot be planned",
        ),
        (bool(serve.get("enable-lora")), "--enable-lora may change it, which was not tried"),
        (
            serve.get("pipeline-parallel-size", 1) != 1,
            "with --pipeline-parallel-size only the last rank has it, which was not tried",
        ),
        (
            method in _SHARES_LM_HEAD,
            f"the drafter by {method} reads the target's, which was not tried quantized",
        ),
    )
    return next((reason for refused, reason in reasons if refused), "")


def _with_plugin() -> list[str]:
    return [name for name in names("engines") if library.engine(name).plugin]


def _check_safety(disabled: tuple[safety.Protection, ...], serve: Serve, deployment: Deployment) -> None:
    if serve.get("trust-remote-code"):  # allow_unsafe cannot allow it
        raise BadInputError(
            "serve.trust-remote-code cannot be set: vLLM has Gemma 4 itself, so no repository's code need run"
        )
    safety.require_allowed(disabled, deployment.allow_unsafe)


def _check_options(schema: OptionSchema, serve: Serve, model: ModelSpec) -> None:
    for name, value in serve.items():
        if name in RESERVED_OPTIONS:
            raise BadInputError(f"serve.{name} cannot be set: {RESERVED_OPTIONS[name]}")
        schema.check_option(name, value)
    for name in ("block-size", *PARALLEL_OPTIONS):
        value = serve.get(name)
        if isinstance(value, int) and value < 1:  # the parser of 0.19.1 has no bounds for these
            raise BadInputError(f"--{name} {value}: a value >= 1 was expected")
    length: JsonValue = serve.get("max-model-len")
    if length == 0:
        raise BadInputError("--max-model-len 0: a context holds at least one token")
    if isinstance(length, int) and model.context_limit and length > model.context_limit:
        raise BadInputError(
            f"--max-model-len {length} is more than {model.name}'s {model.context_limit} tokens",
            hint=f"--set max-model-len={model.context_limit}",
        )


def _check_gpus(serve: Serve, profile: HardwareProfile) -> None:
    """Raise BadInputError when a machine of this kind has fewer GPUs than ranks; `doctor` counts this machine's."""
    most = most_gpus(profile)
    ranks = rank_count(serve)
    if most is None or ranks <= most:
        return
    raise BadInputError(
        f"{_sizes(serve)} needs {ranks} GPUs, and {profile.name} has {most}",
        hint="one deployment on each machine",
    )


def most_gpus(profile: HardwareProfile) -> int | None:
    """Return the most GPUs that a machine of the profile has; None: not known, or it computes without."""
    hardware = profile.hardware
    if hardware.gpu_count == 0:
        return None
    return hardware.gpu_count if hardware.memory == "unified" else hardware.machine_gpus


def _sizes(serve: Serve) -> str:
    return " ".join(f"--{name} {serve[name]}" for name in PARALLEL_OPTIONS if serve.get(name, 1) != 1)


def _check_replicas(
    deployment: Deployment, profile: HardwareProfile, engine: EngineSpec, serve: Serve
) -> None:
    """Raise BadInputError for replicas without a front, and for more than a machine of the profile has GPUs for."""
    count = deployment.replicas
    if count is None:
        return
    if deployment.gateway == "off":
        raise BadInputError(f"--replicas {count} needs nginx in front, and gateway is off")
    if deployment.container.network == "host" or profile.container.network == "host":
        raise BadInputError(f"--replicas {count}: on the host's network the engines would have one port")
    if count == "all" and not engine.gpu:
        raise BadInputError(
            f"--replicas all counts GPUs, and {engine.name} uses none", hint="a number: --replicas 2"
        )
    most, ranks = most_gpus(profile), rank_count(serve)
    if isinstance(count, int) and engine.gpu and most is not None and count * ranks > most:
        each = f" of {ranks} GPUs ({_sizes(serve)})" if ranks > 1 else ""
        raise BadInputError(
            f"--replicas {count}{each} needs {count * ranks} GPUs, and a machine of {profile.name} has {most}",
            hint=f"--replicas {most // ranks}" if most > ranks else "leave --replicas out",
        )


def _check_ranks(serve: Serve, model: ModelSpec, drafter: ModelSpec | None) -> None:
    """Raise BadInputError when the ranks do not divide the attention heads (config/model.py:1111 of 0.19.1).

    A drafter is split like its target. Also for parts of several machines, and for experts that there are not
    (config/model.py:1058).
    """
    data_ranks = serve.get("data-parallel-size", 1)
    local = serve.get("data-parallel-size-local", data_ranks)
    if local != data_ranks:
        raise BadInputError(
            f"--data-parallel-size-local {local} of --data-parallel-size {data_ranks}: a deployment is on one machine",
            hint="leave data-parallel-size-local out",
        )
    if serve.get("data-parallel-backend", "mp") != "mp":
        raise BadInputError("--data-parallel-backend ray: a deployment is on one machine, without Ray")
    if serve.get("enable-expert-parallel") and not model.architecture.experts:
        raise BadInputError(f"--enable-expert-parallel: {model.name} has no experts")
    ranks = serve.get("tensor-parallel-size")
    if not isinstance(ranks, int):
        return
    for each in (model, drafter):
        if each is None:
            continue
        heads = each.architecture.attention_heads
        if heads % ranks:
            raise BadInputError(
                f"--tensor-parallel-size {ranks} does not divide {each.name}'s {heads} attention heads"
            )
