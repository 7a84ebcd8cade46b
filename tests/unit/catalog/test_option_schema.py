"""The committed schema of vLLM 0.19.1, and validation of values against a schema."""

import pytest
from pydantic import JsonValue

from deckard_deploy.catalog.option_schema import Option, OptionSchema, option_schema
from deckard_deploy.errors import BadInputError

RELEASE = option_schema("vllm-0.19.1")
SMALL = OptionSchema(
    vllm_version="1.2.3",
    options={
        "eager": Option(kind="flag"),
        "cache": Option(kind="toggle"),
        "length": Option(kind="integer", choices=("auto",), bounds={"ge": -1}),
        "rank": Option(kind="integer", choices=(8, 16)),
        "share": Option(kind="number", bounds={"gt": 0, "le": 1}),
        "parser": Option(kind="text", choices=("gemma4", "qwen3")),
        "name": Option(kind="text"),
        "config": Option(kind="json"),
        "sizes": Option(kind="list", items="integer"),
        "traces": Option(kind="list", choices=("model", "worker")),
    },
    environment=("VLLM_LOGGING_LEVEL",),
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eager", True),
        ("cache", False),
        ("length", 65536),
        ("length", "auto"),
        ("length", -1),
        ("rank", 16),
        ("share", 0.85),
        ("share", 1),
        ("parser", "gemma4"),
        ("name", ""),
        ("name", "a b; $(c) 'd'"),
        ("config", {"a": [1]}),
        ("config", []),
        ("config", '{"a": 1}'),
        ("sizes", [1, 2]),
        ("traces", ["model"]),
    ],
)
def test_valid_option_value_passes(name: str, value: JsonValue) -> None:
    SMALL.check_option(name, value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("eager", "true", "true or false was expected"),
        ("eager", 1, "true or false was expected"),
        ("cache", None, "true or false was expected"),
        ("length", "64k", "a whole number was expected"),
        ("length", 1.5, "a whole number was expected"),
        ("length", True, "a whole number was expected"),
        ("length", -2, "a value >= -1 was expected"),
        ("rank", 7, "one of 8, 16 was expected"),
        ("rank", "8", "a whole number was expected"),
        ("share", 0, "a value > 0 and <= 1 was expected"),
        ("share", 1.01, "a value > 0 and <= 1 was expected"),
        ("share", "0.85", "a number was expected"),
        ("share", True, "a number was expected"),
        ("parser", "gemma", "one of gemma4, qwen3 was expected; did you mean 'gemma4'?"),
        ("parser", 4, "text was expected: quote it"),
        ("name", "--api-key=x", "a value cannot begin with '-'"),
        ("name", ["x"], "text was expected: quote it"),
        ("config", 7, "a mapping or a list was expected"),
        ("config", "x", "a mapping or a list was expected"),
        ("config", '{"a": 1', "a mapping or a list was expected"),
        ("config", "-1", "a mapping or a list was expected"),
        ("sizes", [], "a list of at least one value was expected"),
        ("sizes", 4, "a list of at least one value was expected"),
        ("sizes", [1, "2"], "a whole number was expected"),
        ("traces", ["module"], "one of model, worker was expected"),
        ("traces", ["--x"], "a value cannot begin with '-'"),
    ],
)
def test_invalid_option_value_raises_one_line(name: str, value: JsonValue, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        SMALL.check_option(name, value)
    assert caught.value.message.startswith(f"--{name} ")
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cach", "vLLM 1.2.3 has no option --cach; did you mean 'cache'?"),
        ("a\nb", "vLLM 1.2.3 has no option --a\\nb"),
    ],
)
def test_unknown_option_raises_one_line(name: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        SMALL.check_option(name, 1)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("max-model-len", "integer"),
        ("max-num-batched-tokens", "integer"),
        ("gpu-memory-utilization", "number"),
        ("speculative-config", "json"),
        ("compilation-config", "json"),
        ("kv-transfer-config", "json"),
        ("limit-mm-per-prompt", "json"),
        ("allowed-origins", "json"),
        ("reasoning-parser", "text"),
        ("middleware", "text"),
        ("pt-load-map-location", "text"),
        ("served-model-name", "list"),
        ("enforce-eager", "toggle"),
        ("headless", "flag"),
    ],
)
def test_option_kinds_of_0_19_1(name: str, kind: str) -> None:
    assert RELEASE.options[name].kind == kind


def test_option_values_of_0_19_1() -> None:
    assert RELEASE.options["max-model-len"].choices == ("auto",)
    assert RELEASE.options["max-num-seqs"].bounds == {"ge": 1}
    assert RELEASE.options["gpu-memory-utilization"].bounds == {"gt": 0, "le": 1}
    assert RELEASE.options["gpu-memory-utilization"].default == 0.9
    assert "fp8" in RELEASE.options["kv-cache-dtype"].choices
    assert RELEASE.options["cudagraph-capture-sizes"].items == "integer"
    assert 16 in RELEASE.options["max-lora-rank"].choices
    # Later releases (vLLM 0.20 and later) have --linear-backend instead of the variable.
    assert "linear-backend" not in RELEASE.options
    assert "VLLM_NVFP4_GEMM_BACKEND" in RELEASE.environment
