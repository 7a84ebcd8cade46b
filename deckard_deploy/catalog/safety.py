"""What keeps an endpoint shut: settings that every deployment gets, and which of them a deployment gives up.

Somebody else's launch line (`--compat`) keeps its own settings; what it gives up is listed all the same.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from deckard_deploy.catalog.option_schema import OptionSchema
from deckard_deploy.catalog.specs import Container, Environment, Serve, ranks_of
from deckard_deploy.catalog.validation import closest
from deckard_deploy.errors import BadInputError

MAX_SEQUENCES = 64
MAX_RESTARTS = 2
# An empty list allows every host (multimodal/media/connector.py:158); RFC 2606 keeps this name from ever being one.
NO_DOMAIN = "media.invalid"
# Loaders that read nothing pickled (model_executor/model_loader/__init__.py:46).
_PLAIN_LOADERS = ("safetensors", "fastsafetensors", "dummy")

_SERVE: Serve = {
    "disable-fastapi-docs": True,
    "load-format": "safetensors",
    "allowed-origins": [],
    "allowed-media-domains": [NO_DOMAIN],
}
_ENVIRONMENT: Environment = {
    "VLLM_MAX_N_SEQUENCES": str(MAX_SEQUENCES),  # vLLM's own limit of `n` is 16384 (envs.py:884)
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # envs.py:787
}

_Kept: TypeAlias = Callable[[Any], bool]


@dataclass(frozen=True)
class Guard:
    """One protection: the setting that holds it, by its path in deckard.yaml, and what is open without it.

    kept: whether a value keeps it; None stands for a setting that is absent. release: the only one that needs it.
    """

    setting: str
    opens: str
    kept: _Kept
    release: str | None = None


def _off(value: object) -> bool:
    return value in (None, False, "", "0")


def _on(value: object) -> bool:
    return value is True


def _is(*values: object) -> _Kept:
    return lambda value: value in values


def _bounded(policy: str) -> bool:
    name, _, count = policy.partition(":")
    return policy == "no" or (name == "on-failure" and _up_to(MAX_RESTARTS, count))


def _few(count: str | None) -> bool:
    return count is not None and _up_to(MAX_SEQUENCES, count)


def _up_to(most: int, count: str) -> bool:
    # Not every digit is one to int(), as "²", nor is a text of thousands a number to it.
    return count.isascii() and count.isdecimal() and len(count) < 10 and int(count) <= most


def _plain_drafting(config: object) -> bool:
    # CVE-2026-44223; text is JSON that vLLM parses.
    return "extract_hidden_states" not in str(config)


def _no_video(limits: object) -> bool:
    found = json.loads(limits) if isinstance(limits, str) else limits  # it was held against the schema before
    video = found.get("video") if isinstance(found, dict) else None  # a kind that is not named has no limit
    return (video.get("count") if isinstance(video, dict) else video) == 0  # CVE-2026-5497


GUARDS = (
    Guard("serve.trust-remote-code", "this host to code in the weights' repository", _off),
    Guard("serve.disable-fastapi-docs", "/docs and /openapi.json", _on),
    Guard("serve.load-format", "loaders that unpickle weights, which runs code", _is(*_PLAIN_LOADERS)),
    Guard("serve.allowed-origins", "the endpoint to every web page in a browser on this host", _is([], "[]")),
    Guard("serve.allow-credentials", "the endpoint to web pages, with the browser's credentials", _off),
    Guard("serve.allowed-media-domains", "hosts that clients make the server fetch from", _is([NO_DOMAIN])),
    Guard("serve.allowed-local-media-path", "files of the server to its clients", _off),
    Guard("serve.trust-request-chat-template", "templates that clients send", _off),
    Guard("serve.trust-request-mm-kwargs", "how images are read, and in how much memory, to clients", _off),
    Guard(
        "serve.limit-mm-per-prompt",
        'videos, whose frames fill the memory, without "video":0',
        _no_video,
        "0.19.1",
    ),
    Guard("serve.enable-mm-embeds", "tensors that clients send, which can crash the engine", _off),
    Guard("serve.enable-prompt-embeds", "tensors that clients send, which can crash the engine", _off),
    Guard("serve.enable-tokenizer-info-endpoint", "/tokenizer_info", _off),
    Guard(
        "serve.enable-scale-out",
        "/render, /derender and /inference/v1, which pass the chat template by",
        _off,
    ),
    Guard("serve.grpc-port", "a second server, past the gateway", _off),
    Guard("serve.kv-events-config", "a port that tells the tokens of every prompt to whoever connects", _off),
    Guard("serve.tool-server", "tools that run the model's own code or ask other hosts", _off),
    Guard("serve.enable-log-requests", "prompts in the log", _off),
    Guard("serve.profiler-config", "/start_profile and /stop_profile", _off),
    Guard(
        "serve.speculative-config", "a crash by any request with penalties (CVE-2026-44223)", _plain_drafting
    ),
    Guard("environment.VLLM_SERVER_DEV_MODE", "/collective_rpc, /sleep and /server_info", _off),
    Guard("environment.VLLM_ALLOW_INSECURE_SERIALIZATION", "pickled messages, which run code", _off),
    Guard("environment.VLLM_ALLOW_RUNTIME_LORA_UPDATING", "loading of adapters by clients", _off),
    Guard("environment.VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "answers in the log", _off),
    Guard(
        "environment.VLLM_MAX_N_SEQUENCES", f"requests for more than {MAX_SEQUENCES} answers at once", _few
    ),
    Guard(
        "environment.VLLM_MEDIA_URL_ALLOW_REDIRECTS",
        "redirects of media to hosts inside the network",
        _is("0"),
    ),
    Guard("container.network", "every listener of vLLM and torch on the host's own addresses", _is("bridge")),
    Guard("container.ipc", "the shared memory of other processes", _is("private")),
    Guard("container.restart", f"more than {MAX_RESTARTS} starts of a server that cannot start", _bounded),
)


def safe_serve(schema: OptionSchema) -> Serve:
    """The options that every deployment gets, as far as this release has them."""
    return {name: value for name, value in _SERVE.items() if name in schema.options}


def safe_environment(schema: OptionSchema) -> Environment:
    """The variables that every deployment gets, as far as this release reads them."""
    return {name: value for name, value in _ENVIRONMENT.items() if name in schema.environment}


def given_up(
    serve: Serve, environment: Environment, container: Container, schema: OptionSchema
) -> tuple[Guard, ...]:
    """The protections that these settings do without, in the order of GUARDS."""
    settings: dict[str, Mapping[str, Any]] = {
        "serve": serve,
        "environment": environment,
        "container": _multi_gpu(container, serve),
    }
    known = {"serve": schema.options, "environment": schema.environment, "container": Container.model_fields}
    found = []
    for guard in GUARDS:
        section, name = guard.setting.split(".", 1)
        needed = guard.release in (None, schema.vllm_version)
        if needed and name in known[section] and not guard.kept(settings[section].get(name)):
            found.append(guard)
    return tuple(found)


def check(guards: Iterable[Guard], allowed: tuple[str, ...]) -> None:
    """Raise BadInputError for the first protection that is given up without being named in `allow_unsafe`."""
    known = [guard.setting for guard in GUARDS]
    for name in allowed:
        if name not in known:
            raise BadInputError(f"allow_unsafe: no protection is called {name!r}{closest(name, known)}")
    for guard in guards:
        if guard.setting not in allowed:
            raise BadInputError(
                f"{guard.setting} as it is set opens {guard.opens}",
                hint=f"""take it out, or, knowing that: --set 'allow_unsafe=["{guard.setting}"]'""",
            )


def _multi_gpu(container: Container, serve: Serve) -> dict[str, Any]:
    """The container's settings; sharing the host's IPC is no loss where several GPUs need it (NCCL)."""
    settings = container.model_dump()
    if ranks_of(serve) > 1:
        settings["ipc"] = "private"
    return settings
