"""Every protection is on by default, is refused when it is taken out, and is listed when that was allowed."""

import json
import re

import pytest

from deckard_deploy.catalog import library, listing, safety
from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.errors import BadInputError

# Each gives up the protection of the setting that it names; the others hold.
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
# Of vLLM 0.32.0 alone.
OPENING_LATER = ["serve.trust-request-mm-kwargs=true", "serve.enable-scale-out=true", "serve.grpc-port=50051"]
LATER = "engine=vllm-0.32.0"
HARMLESS = [
    "serve.load-format=fastsafetensors",
    "serve.allowed-origins='[]'",
    "serve.trust-remote-code=false",
    'serve.limit-mm-per-prompt={"image": 4, "video": 0}',
    'serve.limit-mm-per-prompt={"video": {"count": 0, "num_frames": 8}}',
    "serve.limit-mm-per-prompt='{\"video\": 0}'",
    "environment.VLLM_SERVER_DEV_MODE=0",
    "environment.VLLM_MAX_N_SEQUENCES=4",
    "container.restart=no",
    "container.restart=on-failure:1",
]


def chosen(*settings: str, profile: str = "spark", compat: str | None = None) -> Resolved:
    deployment = with_settings(parse("", source="deckard.yaml"), settings)
    compatibility = library.compatibility(compat) if compat else None
    return resolve(deployment, profile=library.profile(profile), compatibility=compatibility)


def setting_of(opening: str) -> str:
    return opening.partition("=")[0]


@pytest.mark.parametrize("profile", listing.names("profiles"))
def test_no_profile_gives_anything_up(profile: str) -> None:
    assert chosen(profile=profile).given_up == ()


@pytest.mark.parametrize("opening", OPENING)
def test_what_opens_is_refused_and_named(opening: str) -> None:
    with pytest.raises(BadInputError, match=setting_of(opening).replace(".", r"\.")) as refused:
        chosen(opening)
    assert "allow_unsafe" in refused.value.hint


@pytest.mark.parametrize("opening", OPENING)
def test_what_was_allowed_is_listed(opening: str) -> None:
    setting = setting_of(opening)
    assert chosen(opening, f"allow_unsafe={json.dumps([setting])}").given_up == (setting,)


@pytest.mark.parametrize("opening", OPENING_LATER)
def test_what_a_later_release_opens_is_refused_and_listed_too(opening: str) -> None:
    with pytest.raises(BadInputError, match=rf"{setting_of(opening)} as it is set opens"):
        chosen(opening, LATER)
    setting = setting_of(opening)
    assert chosen(opening, LATER, f"allow_unsafe={json.dumps([setting])}").given_up == (setting,)


@pytest.mark.parametrize("harmless", HARMLESS)
def test_what_opens_nothing_needs_no_leave(harmless: str) -> None:
    assert chosen(harmless).given_up == ()


def test_what_a_later_release_has_mended_needs_no_leave_there() -> None:
    assert chosen('serve.limit-mm-per-prompt={"image": 4}', LATER).given_up == ()


def settings_of(release: str) -> set[str]:
    schema = option_schema(release)
    return {f"serve.{name}" for name in schema.options} | {
        f"environment.{name}" for name in schema.environment
    }


def test_every_protection_is_tried_and_is_a_setting_of_the_release() -> None:
    of_container = {"container.network", "container.ipc", "container.restart"}
    now = {setting_of(opening) for opening in OPENING} | {"serve.trust-remote-code"}
    later = {setting_of(opening) for opening in OPENING_LATER}
    assert {guard.setting for guard in safety.GUARDS} == now | later
    assert now <= settings_of("vllm-0.19.1") | of_container
    assert later <= settings_of("vllm-0.32.0") - settings_of("vllm-0.19.1")


SOUNDS_OPEN = re.compile(
    r"trust|allow|insecure|unsafe|expose|-embeds|-endpoint$|log-(requests|outputs)|grpc|dev_mode"
)
OPENS_NOTHING = {
    "serve.allow-deprecated-quantization",
    "serve.allowed-headers",  # of CORS, which has no origin
    "serve.allowed-methods",
    "serve.enable-log-outputs",  # only beside enable-log-requests
    "serve.grpc",  # reserved
    "serve.otlp-traces-endpoint",  # where it sends, not what it opens; the engine's network leads nowhere
    "environment.VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE",
    "environment.VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    "environment.VLLM_DEEPEP_V2_ALLOW_HYBRID_MODE",
    "environment.VLLM_DEEPEP_V2_ALLOW_MULTIPLE_REDUCTION",
}


@pytest.mark.parametrize("release", ["vllm-0.19.1", "vllm-0.32.0"])
def test_what_sounds_open_was_judged(release: str) -> None:
    """A release with a new one of these fails here, and somebody reads what it does."""
    sounding = {setting for setting in settings_of(release) if SOUNDS_OPEN.search(setting.lower())}
    assert sounding <= {guard.setting for guard in safety.GUARDS} | OPENS_NOTHING


def test_leave_for_one_is_no_leave_for_another() -> None:
    with pytest.raises(BadInputError, match=r"container\.ipc"):
        chosen("container.ipc=host", 'allow_unsafe=["container.network"]')


def test_a_mistyped_name_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"'container.netwrok'; did you mean 'container.network'\?"):
        chosen('allow_unsafe=["container.netwrok"]')


def test_code_of_a_repository_is_never_run() -> None:
    with pytest.raises(BadInputError, match="vLLM has Gemma 4 itself"):
        chosen("serve.trust-remote-code=true", 'allow_unsafe=["serve.trust-remote-code"]')


def test_several_gpus_may_share_the_hosts_ipc() -> None:
    assert chosen("container.ipc=host", "tensor-parallel-size=2", profile="b200").given_up == ()


def test_somebody_elses_line_keeps_its_settings_and_says_what_it_gives_up() -> None:
    kept = chosen(compat="seed")
    assert "disable-fastapi-docs" not in kept.serve
    assert kept.serve["trust-remote-code"] is True
    assert {"container.network", "container.ipc", "container.restart", "serve.trust-remote-code"} <= set(
        kept.given_up
    )
