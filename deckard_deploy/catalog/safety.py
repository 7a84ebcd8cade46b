"""The protections of an endpoint: settings that every deployment gets, and those that a deployment disables.

A compatibility launch line (`--compat`) keeps its own settings; the protections that it disables are listed
too.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from deckard_deploy.catalog.option_schema import OptionSchema
from deckard_deploy.catalog.specs import Container, Environment, Serve, rank_count
from deckard_deploy.errors import BadInputError
from deckard_deploy.system.suggestion import closest

MAX_SEQUENCES = 64
MAX_RESTARTS = 2
# An empty list allows every host (multimodal/media/connector.py:158). No host has this name (RFC 2606).
NO_DOMAIN = "media.invalid"
# Loaders that unpickle nothing (model_executor/model_loader/__init__.py:46).
_PLAIN_LOADERS = ("safetensors", "fastsafetensors", "dummy")

_SERVE: Serve = {
    "disable-fastapi-docs": True,
    "load-format": "safetensors",
    "allowed-origins": [],
    "allowed-media-domains": [NO_DOMAIN],
}
# By release. With the default, `auto`, the engine keeps the backend of the first grammar. A later grammar that only
# another backend reads ends the engine (CVE-2026-105757; v1/structured_output/__init__.py:80 of 0.19.1).
_SERVE_OF: dict[str, Serve] = {"0.19.1": {"structured-outputs-config": {"backend": "xgrammar"}}}
_ENVIRONMENT: Environment = {
    "VLLM_MAX_N_SEQUENCES": str(MAX_SEQUENCES),  # vLLM's own limit of `n` is 16384 (envs.py:884)
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # envs.py:787
}

_Predicate: TypeAlias = Callable[[Any], bool]


@dataclass(frozen=True)
class Protection:
    """One protection: the setting that keeps it, by its path in deckard.yaml, and what is open without it.

    kept_by: True for a value that keeps the protection; None stands for an absent setting. release: the only
    vLLM release that needs it; None: every release.
    """

    setting: str
    opens: str
    kept_by: _Predicate
    release: str | None = None


def _is_off(value: object) -> bool:
    return value in (None, False, "", "0")


def _is_on(value: object) -> bool:
    return value is True


def _is_any_of(*values: object) -> _Predicate:
    return lambda value: value in values


def _bounds_restarts(policy: str) -> bool:
    name, _, count = policy.partition(":")
    return policy == "no" or (name == "on-failure" and _is_at_most(MAX_RESTARTS, count))


def _bounds_sequences(count: str | None) -> bool:
    return count is not None and _is_at_most(MAX_SEQUENCES, count)


def _is_at_most(limit: int, count: str) -> bool:
    # int() refuses some digits, such as "²", and numbers of thousands of digits.
    return count.isascii() and count.isdecimal() and len(count) < 10 and int(count) <= limit


def _drafts_plainly(config: object) -> bool:
    # CVE-2026-44223. The config may be text: JSON that vLLM parses.
    return "extract_hidden_states" not in str(config)


def _forbids_video(limits: object) -> bool:
    """Return True if the limit of videos is 0 (CVE-2026-5497); a kind without an entry has no limit."""
    if isinstance(limits, str):
        limits = json.loads(limits)  # valid JSON: it was checked against the schema before
    if not isinstance(limits, dict):
        return False
    video = limits.get("video")
    if isinstance(video, dict):
        video = video.get("count")
    return video == 0


def _has_one_backend(config: object) -> bool:
    """Return True if the grammars of all requests are of one backend."""
    if isinstance(config, str):
        config = json.loads(config)  # valid JSON, as above
    return isinstance(config, dict) and config.get("backend", "auto") != "auto"


PROTECTIONS = (
    Protection("serve.trust-remote-code", "this host to code in the weights' repository", _is_off),
    Protection("serve.disable-fastapi-docs", "/docs and /openapi.json", _is_on),
    Protection(
        "serve.load-format", "loaders that unpickle weights, which runs code", _is_any_of(*_PLAIN_LOADERS)
    ),
    Protection(
        "serve.allowed-origins",
        "the endpoint to every web page in a browser on this host",
        _is_any_of([], "[]"),
    ),
    Protection(
        "serve.allow-credentials", "the endpoint to web pages, with the browser's credentials", _is_off
    ),
    Protection(
        "serve.allowed-media-domains",
        "hosts that clients make the server fetch from",
        _is_any_of([NO_DOMAIN]),
    ),
    Protection("serve.allowed-local-media-path", "files of the server to its clients", _is_off),
    Protection("serve.trust-request-chat-template", "templates that clients send", _is_off),
    Protection(
        "serve.trust-request-mm-kwargs", "how images are read, and in how much memory, to clients", _is_off
    ),
    Protection(
        "serve.limit-mm-per-prompt",
        'videos, whose frames fill the memory, without "video":0',
        _forbids_video,
        "0.19.1",
    ),
    Protection(
        "serve.structured-outputs-config",
        "the engine to a grammar that ends it, without a backend of its own (CVE-2026-105757)",
        _has_one_backend,
        "0.19.1",
    ),
    Protection("serve.enable-mm-embeds", "tensors that clients send, which can crash the engine", _is_off),
    Protection(
        "serve.enable-prompt-embeds", "tensors that clients send, which can crash the engine", _is_off
    ),
    Protection("serve.enable-tokenizer-info-endpoint", "/tokenizer_info", _is_off),
    Protection(
        "serve.enable-scale-out",
        "/render, /derender and /inference/v1, which pass the chat template by",
        _is_off,
    ),
    Protection("serve.grpc-port", "a second server, past the gateway", _is_off),
    Protection(
        "serve.kv-events-config",
        "a port that tells the tokens of every prompt to everyone who connects",
        _is_off,
    ),
    Protection("serve.tool-server", "tools that run the model's own code or ask other hosts", _is_off),
    Protection("serve.enable-log-requests", "prompts in the log", _is_off),
    Protection("serve.profiler-config", "/start_profile and /stop_profile", _is_off),
    Protection(
        "serve.speculative-config", "a crash by any request with penalties (CVE-2026-44223)", _drafts_plainly
    ),
    Protection("environment.VLLM_SERVER_DEV_MODE", "/collective_rpc, /sleep and /server_info", _is_off),
    Protection("environment.VLLM_ALLOW_INSECURE_SERIALIZATION", "pickled messages, which run code", _is_off),
    Protection("environment.VLLM_ALLOW_RUNTIME_LORA_UPDATING", "loading of adapters by clients", _is_off),
    Protection("environment.VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "answers in the log", _is_off),
    Protection(
        "environment.VLLM_MAX_N_SEQUENCES",
        f"requests for more than {MAX_SEQUENCES} answers at once",
        _bounds_sequences,
    ),
    Protection(
        "environment.VLLM_MEDIA_URL_ALLOW_REDIRECTS",
        "redirects of media to hosts inside the network",
        _is_any_of("0"),
    ),
    Protection("environment.LD_PRELOAD", "every process of the engine to the code of that library", _is_off),
    Protection("environment.LD_AUDIT", "every process of the engine to the code of that library", _is_off),
    Protection(
        "environment.TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "torch.load to pickles, which run code", _is_off
    ),
    Protection("environment.TRUST_REMOTE_CODE", "this host to code in the weights' repository", _is_off),
    Protection(
        "container.network",
        "every listener of vLLM and torch on the host's own addresses",
        _is_any_of("bridge"),
    ),
    Protection("container.ipc", "the shared memory of other processes", _is_any_of("private")),
    Protection(
        "container.restart",
        f"more than {MAX_RESTARTS} starts of a server that cannot start",
        _bounds_restarts,
    ),
)


def safe_serve(schema: OptionSchema) -> Serve:
    """Return the options that every deployment gets, if this release has them."""
    wanted = {**_SERVE, **_SERVE_OF.get(schema.vllm_version, {})}
    return {name: value for name, value in wanted.items() if name in schema.options}


def safe_environment(schema: OptionSchema) -> Environment:
    """Return the variables that every deployment gets, if this release reads them."""
    return {name: value for name, value in _ENVIRONMENT.items() if name in schema.environment}


def disabled_protections(
    serve: Serve, environment: Environment, container: Container, schema: OptionSchema
) -> tuple[Protection, ...]:
    """Return the protections that these settings disable, in the order of PROTECTIONS."""
    settings: dict[str, Mapping[str, Any]] = {
        "serve": serve,
        "environment": environment,
        "container": _container_settings(container, serve),
    }
    known = {"serve": schema.options, "environment": schema.environment, "container": Container.model_fields}
    disabled = []
    for protection in PROTECTIONS:
        section, name = protection.setting.split(".", 1)
        needed = protection.release in (None, schema.vllm_version)
        exists = name in known[section] or name in settings[section]
        if needed and exists and not protection.kept_by(settings[section].get(name)):
            disabled.append(protection)
    return tuple(disabled)


def require_allowed(disabled: Iterable[Protection], allowed: tuple[str, ...]) -> None:
    """Raise BadInputError for the first disabled protection that `allow_unsafe` does not name."""
    known = [protection.setting for protection in PROTECTIONS]
    for name in allowed:
        if name not in known:
            raise BadInputError(f"allow_unsafe: no protection is called {name!r}{closest(name, known)}")
    for protection in disabled:
        setting = protection.setting
        if setting not in allowed:
            raise BadInputError(
                f"{setting} as it is set opens {protection.opens}",
                hint=f"""take it out, or, knowing that: --set 'allow_unsafe=["{setting}"]'""",
            )


def _container_settings(container: Container, serve: Serve) -> dict[str, Any]:
    """Return the container's settings. ipc counts as private with several GPUs: NCCL needs the host's."""
    settings = container.model_dump()
    if rank_count(serve) > 1:
        settings["ipc"] = "private"
    return settings
