"""Protections are on by default; disabling one raises, or lists it when `allow_unsafe` names it."""

import json
import re

import pytest

from deckard_deploy.catalog import library, listing, safety
from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.catalog.variables import known_variables
from deckard_deploy.errors import BadInputError
from tests.support.sample_choices import patched

# Each disables only the protection of its own setting.
OPENING = [
    "serve.disable-fastapi-docs=null",
    "serve.disable-fastapi-docs=false",
    "serve.load-format=auto",
    "serve.load-format=pt",
    "serve.load-format=null",
    'serve.allowed-origins=["*"]',
    "serve.allowed-origins=null",
    "serve.allow-credentials=true",
    'serve.allowed-media-domains=["example.org"]',
    'serve.allowed-media-domains=["media.invalid", "10.0.0.1"]',
    "serve.allowed-media-domains=null",
    "serve.allowed-local-media-path=/",
    "serve.trust-request-chat-template=true",
    'serve.limit-mm-per-prompt={"image": 4}',
    'serve.limit-mm-per-prompt={"image": 4, "video": 1}',
    "serve.limit-mm-per-prompt=null",
    "serve.structured-outputs-config=null",
    'serve.structured-outputs-config={"disable_any_whitespace": true}',
    'serve.structured-outputs-config={"backend": "auto"}',
    "serve.enable-mm-embeds=true",
    "serve.enable-prompt-embeds=true",
    "serve.enable-tokenizer-info-endpoint=true",
    'serve.profiler-config={"profiler": "torch"}',
    "serve.tool-server=demo",
    "serve.enable-log-requests=true",
    'serve.kv-events-config={"enable_kv_cache_events": true, "publisher": "zmq"}',
    'serve.speculative-config={"method": "extract_hidden_states", "num_speculative_tokens": 1}',
    "environment.VLLM_SERVER_DEV_MODE=1",
    "environment.VLLM_ALLOW_INSECURE_SERIALIZATION=1",
    "environment.VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
    "environment.VLLM_DEBUG_LOG_API_SERVER_RESPONSE=1",
    "environment.LD_PRELOAD=/tmp/x.so",
    "environment.LD_AUDIT=/tmp/x.so",
    "environment.TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1",
    "environment.TRUST_REMOTE_CODE=1",
    "environment.VLLM_MAX_N_SEQUENCES=65",
    "environment.VLLM_MAX_N_SEQUENCES=null",
    "environment.VLLM_MAX_N_SEQUENCES=-1",
    "environment.VLLM_MAX_N_SEQUENCES=²",
    "environment.VLLM_MAX_N_SEQUENCES=" + "9" * 5000,
    "environment.VLLM_MEDIA_URL_ALLOW_REDIRECTS=1",
    "environment.VLLM_MEDIA_URL_ALLOW_REDIRECTS=null",
    "container.network=host",
    "container.ipc=host",
    "container.ipc=shareable",
    "container.restart=always",
    "container.restart=unless-stopped",
    "container.restart=on-failure",
    "container.restart=on-failure:3",
    "container.restart=on-failure:999999999",
]
# Only vLLM 0.32.0 has these.
OPENING_LATER = ["serve.trust-request-mm-kwargs=true", "serve.enable-scale-out=true", "serve.grpc-port=50051"]
LATER = "engine=vllm-0.32.0"
HARMLESS = [
    "serve.load-format=fastsafetensors",
    "serve.allowed-origins='[]'",
    "serve.trust-remote-code=false",
    'serve.limit-mm-per-prompt={"image": 4, "video": 0}',
    'serve.limit-mm-per-prompt={"video": {"count": 0, "num_frames": 8}}',
    "serve.limit-mm-per-prompt='{\"video\": 0}'",
    'serve.structured-outputs-config={"backend": "guidance"}',
    'serve.structured-outputs-config=\'{"backend": "xgrammar"}\'',
    "environment.VLLM_SERVER_DEV_MODE=0",
    "environment.VLLM_MAX_N_SEQUENCES=4",
    "container.restart=no",
    "container.restart=on-failure:1",
]


def chosen(*settings: str, profile: str = "spark", compat: str | None = None) -> Resolved:
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    compatibility = library.compatibility(compat) if compat else None
    return resolve(deployment, profile=patched(profile), compatibility=compatibility)


def setting_of(opening: str) -> str:
    return opening.partition("=")[0]


@pytest.mark.parametrize("profile", listing.names("profiles"))
def test_no_profile_disables_protections(profile: str) -> None:
    assert chosen(profile=profile).disabled_protections == ()


@pytest.mark.parametrize("opening", OPENING)
def test_disabled_protection_raises_with_setting(opening: str) -> None:
    with pytest.raises(BadInputError, match=setting_of(opening).replace(".", r"\.")) as refused:
        chosen(opening)
    assert "allow_unsafe" in refused.value.hint


@pytest.mark.parametrize("opening", OPENING)
def test_allowed_settings_are_listed(opening: str) -> None:
    setting = setting_of(opening)
    assert chosen(opening, f"allow_unsafe={json.dumps([setting])}").disabled_protections == (setting,)


@pytest.mark.parametrize("opening", OPENING_LATER)
def test_protections_of_later_release_raise(opening: str) -> None:
    with pytest.raises(BadInputError, match=rf"{setting_of(opening)} as it is set opens"):
        chosen(opening, LATER)
    setting = setting_of(opening)
    assert chosen(opening, LATER, f"allow_unsafe={json.dumps([setting])}").disabled_protections == (setting,)


@pytest.mark.parametrize("harmless", HARMLESS)
def test_safe_values_need_no_allow_unsafe(harmless: str) -> None:
    assert chosen(harmless).disabled_protections == ()


def test_protection_ends_with_its_release() -> None:
    assert chosen('serve.limit-mm-per-prompt={"image": 4}', LATER).disabled_protections == ()


def settings_of(release: str) -> set[str]:
    schema = option_schema(release)
    return {f"serve.{name}" for name in schema.options} | {
        f"environment.{name}" for name in schema.environment
    }


def test_every_protection_has_a_case() -> None:
    of_container = {"container.network", "container.ipc", "container.restart"}
    now = {setting_of(opening) for opening in OPENING} | {"serve.trust-remote-code"}
    later = {setting_of(opening) for opening in OPENING_LATER}
    assert {protection.setting for protection in safety.PROTECTIONS} == now | later
    of_libraries = {f"environment.{name}" for name in known_variables().names}
    assert now <= settings_of("vllm-0.19.1") | of_container | of_libraries
    assert later <= settings_of("vllm-0.32.0") - settings_of("vllm-0.19.1")


SUSPICIOUS = re.compile(
    r"trust|allow|insecure|unsafe|expose|-embeds|-endpoint$|log-(requests|outputs)|grpc|dev_mode"
)
REVIEWED = {
    "serve.allow-deprecated-quantization",
    "serve.allowed-headers",  # CORS allows no origin
    "serve.allowed-methods",
    "serve.enable-log-outputs",  # only with enable-log-requests
    "serve.grpc",  # reserved
    "serve.otlp-traces-endpoint",  # sends, but opens nothing; the engine's network has no way out
    "environment.VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE",
    "environment.VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    "environment.VLLM_DEEPEP_V2_ALLOW_HYBRID_MODE",
    "environment.VLLM_DEEPEP_V2_ALLOW_MULTIPLE_REDUCTION",
}


@pytest.mark.parametrize("release", ["vllm-0.19.1", "vllm-0.32.0"])
def test_suspicious_options_are_reviewed(release: str) -> None:
    """A release with a new suspicious option fails here, until a person has reviewed the option."""
    suspicious = {setting for setting in settings_of(release) if SUSPICIOUS.search(setting.lower())}
    assert suspicious <= {protection.setting for protection in safety.PROTECTIONS} | REVIEWED


def test_allow_unsafe_covers_only_named_settings() -> None:
    with pytest.raises(BadInputError, match=r"container\.ipc"):
        chosen("container.ipc=host", 'allow_unsafe=["container.network"]')


def test_unknown_allow_unsafe_name_raises() -> None:
    with pytest.raises(BadInputError, match=r"'container.netwrok'; did you mean 'container.network'\?"):
        chosen('allow_unsafe=["container.netwrok"]')


def test_trust_remote_code_always_raises() -> None:
    with pytest.raises(BadInputError, match="vLLM has Gemma 4 itself"):
        chosen("serve.trust-remote-code=true", 'allow_unsafe=["serve.trust-remote-code"]')


def test_multiple_gpus_may_share_host_ipc() -> None:
    assert chosen("container.ipc=host", "tensor-parallel-size=2", profile="b200").disabled_protections == ()


def test_compat_lists_its_disabled_protections() -> None:
    kept = chosen(compat="seed")
    assert "disable-fastapi-docs" not in kept.serve
    assert kept.serve["trust-remote-code"] is True
    assert {"container.network", "container.ipc", "container.restart", "serve.trust-remote-code"} <= set(
        kept.disabled_protections
    )
