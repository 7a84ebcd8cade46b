"""deckard.yaml and --set merged into one deployment."""

from pathlib import Path

import pytest

from deckard_deploy.catalog.overrides import read_deployment, with_settings
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.errors import BadInputError

ROOT = Path(__file__).parents[3]


def deployment(*settings: str, text: str = "") -> Deployment:
    return with_settings(parse(text, source="deckard.yaml"), settings)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("max-num-seqs=8", {"serve": {"max-num-seqs": 8}}),
        ("max_num_seqs=8", {"serve": {"max-num-seqs": 8}}),
        ("serve.max_num_seqs=8", {"serve": {"max-num-seqs": 8}}),
        ("gpu-memory-utilization=0.5", {"serve": {"gpu-memory-utilization": 0.5}}),
        ("enforce-eager=true", {"serve": {"enforce-eager": True}}),
        ("max-num-seqs=null", {"serve": {"max-num-seqs": None}}),
        ("max-num-seqs=", {"serve": {"max-num-seqs": None}}),
        ("chat-template=/a b/c: #d.jinja", {"serve": {"chat-template": "/a b/c: #d.jinja"}}),
        ("kv-cache-dtype='on'", {"serve": {"kv-cache-dtype": "on"}}),
        ("kv-cache-dtype=on", {"serve": {"kv-cache-dtype": "on"}}),
        ('limit-mm-per-prompt={"image": 4}', {"serve": {"limit-mm-per-prompt": {"image": 4}}}),
        ("cudagraph-capture-sizes=[1, 2]", {"serve": {"cudagraph-capture-sizes": [1, 2]}}),
        ("seed=x=y", {"serve": {"seed": "x=y"}}),
        ("engine=vllm-0.19.1", {"engine": "vllm-0.19.1"}),
        ("name=0.19.1", {"name": "0.19.1"}),
        ("startup_timeout_s=60", {"startup_timeout_s": 60}),
        ("startup-timeout-s=60", {"startup_timeout_s": 60}),
        ("drafter-tokens=2", {"drafter_tokens": 2}),
        ("publish.port=8080", {"publish": {"port": 8080}}),
        ("publish.address=::1", {"publish": {"address": "::1"}}),
        ("container.shm_size=8g", {"container": {"shm_size": "8g"}}),
        ("environment.VLLM_CPU_KVCACHE_SPACE=2", {"environment": {"VLLM_CPU_KVCACHE_SPACE": "2"}}),
        ("environment.VLLM_LOGGING_LEVEL=null", {"environment": {"VLLM_LOGGING_LEVEL": None}}),
        ("environment.A={b", {"environment": {"A": "{b"}}),
    ],
)
def test_setting_lands_at_its_key_path(setting: str, expected: dict[str, object]) -> None:
    assert deployment(setting).model_dump(exclude_unset=True) == expected


def test_later_settings_override_earlier_and_file() -> None:
    text = "serve:\n  max-num-seqs: 1\n  dtype: auto\npublish:\n  port: 1\n"
    found = deployment("max-num-seqs=2", "serve.max-num-seqs=3", "publish.address=::", text=text)
    assert found.serve == {"max-num-seqs": 3, "dtype": "auto"}
    assert (found.publish.address, found.publish.port) == ("::", 1)


def test_with_settings_keeps_the_document() -> None:
    document = parse("serve:\n  seed: 1\n", source="f")
    with_settings(document, ["seed=2"])
    assert document.data == {"serve": {"seed": 1}}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nothing", "--set nothing: KEY=VALUE was expected"),
        ("=1", "--set =1: KEY=VALUE was expected"),
        ("", "--set : KEY=VALUE was expected"),
        ("serve=1", "--set serve=1: serve is a section: name a key in it, serve.KEY=VALUE"),
        ("publish.port=x", "--set publish.port=x: 'x': a whole number was expected"),
        ("publish.port=0", "--set publish.port=0: 0: input should be greater than or equal to 1"),
        ("publish.prot=1", "--set publish.prot=1: unknown key; did you mean 'port'?"),
        (
            "publish.address=localhost",
            "--set publish.address=localhost: 'localhost': an IPv4 or IPv6 address",
        ),
        ("container.restart=never", "'never': no, always, unless-stopped or on-failure:N was expected"),
        ("container.shm_size=16", "--set container.shm_size=16: 16: text was expected: quote it"),
        ("name=A B", "--set name=A B: 'A B': a name of a-z"),
        ("image=UPPER/x:1", "--set image=UPPER/x:1: 'UPPER/x:1': an image reference"),
        ("environment.1A=x", "--set environment.1A=x: '1A': a name of A-Z"),
        ('speculative-config={"a":', '--set speculative-config={"a"::'),
        ("name=a\nb", "--set name=a\\nb: 'a\\nb': a name of"),
        ('name="a\\0"', "a NUL character"),
        ("name=\udcff", "\\udcff"),
    ],
)
def test_bad_setting_raises_one_line_with_its_name(setting: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        deployment(setting)
    assert message in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profil: spark", "deckard.yaml:1: profil: unknown key; did you mean 'profile'?"),
        (
            "publish:\n  port: '8000'",
            "deckard.yaml:2: publish.port: '8000': a whole number was expected, without quotes",
        ),
        ("publish: null", "deckard.yaml:1: publish: None: "),
        ("serve: [a]", "deckard.yaml:1: serve: ['a']: "),
        (
            "environment:\n  VLLM_CPU_KVCACHE_SPACE: 1",
            "deckard.yaml:2: environment.VLLM_CPU_KVCACHE_SPACE: 1: ",
        ),
        ("container:\n  ipc: hosts", "deckard.yaml:2: container.ipc: 'hosts': input should be 'private'"),
        ('"a\\nb": 1', "deckard.yaml:1: a\\nb: unknown key"),
    ],
)
def test_bad_file_raises_one_line_with_location(text: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        deployment(text=text)
    assert caught.value.message.startswith(message)
    assert len(caught.value.message.splitlines()) == 1


def test_setting_below_a_scalar_raises() -> None:
    with pytest.raises(BadInputError, match="publish is not a section"):
        deployment("publish.port=1", text="publish: 3")


def test_no_file_is_an_empty_deployment() -> None:
    assert with_settings(read_deployment(None), []) == Deployment()


def test_missing_file_raises_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        read_deployment(tmp_path / "deckard.yaml")
