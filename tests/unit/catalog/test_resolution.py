"""Precedence of sources, refused settings, and parts that do not fit together."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deckard_deploy.catalog import library
from deckard_deploy.catalog.overrides import with_settings
from deckard_deploy.catalog.resolution import RESERVED_OPTIONS, SECRET_VARIABLES, Resolved, resolve
from deckard_deploy.catalog.specs import Deployment, HardwareProfile
from deckard_deploy.catalog.strict_yaml import parse
from deckard_deploy.errors import BadInputError
from tests.support.sample_choices import choice, patched

SPARK, B200, THOR, CPU = (patched(name) for name in ("spark", "b200", "thor", "cpu"))
SEED = library.compatibility("seed")
LOADS_31B = library.model("deckard-31b").served_by


def resolved(profile: HardwareProfile, *settings: str, text: str = "", seed: bool = False) -> Resolved:
    deployment = with_settings(parse(text, source="deckard.yaml"), settings)
    return resolve(deployment, profile=profile, compatibility=SEED if seed else None)


def refusal(profile: HardwareProfile, *settings: str, text: str = "", seed: bool = False) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        resolved(profile, *settings, text=text, seed=seed)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


@given(st.sets(st.sampled_from(["profile", "file", "setting"])))
def test_later_source_wins(levels: set[str]) -> None:
    """The model always has 1024; profile, deckard.yaml and --set have 1, 3 and 4, or nothing."""
    profile = CPU.model_copy(update={"serve": {"max-model-len": 1} if "profile" in levels else {}})
    text = "serve: {max-model-len: 3}" if "file" in levels else ""
    settings = ["max-model-len=4"] if "setting" in levels else []
    expected = 1024
    if "file" in levels:
        expected = 3
    if "setting" in levels:
        expected = 4
    assert resolved(profile, *settings, text=text).serve["max-model-len"] == expected


@pytest.mark.parametrize(("text", "expected"), [("", 4), ("serve: {max-num-seqs: 5}", 5)])
def test_profile_value_stays_without_later_source(text: str, expected: int) -> None:
    assert resolved(SPARK, text=text).serve["max-num-seqs"] == expected


@pytest.mark.parametrize(
    ("settings", "text"),
    [(["max-num-batched-tokens=null"], ""), ([], "serve:\n  max-num-batched-tokens: null\n")],
)
def test_null_removes_an_option(settings: list[str], text: str) -> None:
    assert "max-num-batched-tokens" in resolved(SPARK).serve
    assert "max-num-batched-tokens" not in resolved(SPARK, *settings, text=text).serve


def test_null_removes_a_variable() -> None:
    assert "VLLM_NO_USAGE_STATS" in resolved(SPARK).environment
    assert "VLLM_NO_USAGE_STATS" not in resolved(SPARK, "environment.VLLM_NO_USAGE_STATS=null").environment


def test_a_null_in_the_file_can_be_set_again() -> None:
    assert resolved(SPARK, "max-num-seqs=9", text="serve: {max-num-seqs: null}").serve["max-num-seqs"] == 9


def test_container_merges_key_by_key() -> None:
    found = resolved(SPARK, "container.restart=no", text="container: {shm_size: null}").container
    assert (found.ipc, found.shm_size, found.restart) == ("private", None, "no")
    assert resolved(SPARK).container.shm_size == "16g"


def test_names_and_deadline() -> None:
    assert (resolved(SPARK).name, resolved(SPARK, "name=x").name) == ("spark", "x")
    assert (resolved(CPU).startup_timeout_s, resolved(CPU, "startup_timeout_s=7").startup_timeout_s) == (
        300,
        7,
    )


def test_an_image_replaces_the_engines() -> None:
    assert resolved(SPARK).engine.image == "vllm/vllm-openai:v0.19.1-cu130"
    digest = "sha256:" + "0" * 64
    assert (
        resolved(SPARK, f"image=mirror.example/vllm@{digest}").engine.image == f"mirror.example/vllm@{digest}"
    )
    assert library.engine("vllm-0.19.1").image == "vllm/vllm-openai:v0.19.1-cu130"
    assert "runs without an image" in refusal(CPU, "image=x/y:1").message


@pytest.mark.parametrize("name", ["NCCL_P2P_DISABLE", "CUDA_LAUNCH_BLOCKING", "TRITON_PTXAS_BLACKWELL_PATH"])
@pytest.mark.parametrize("engine", ["vllm-0.19.1", "vllm-0.32.0"])
def test_library_variables_can_be_set(engine: str, name: str) -> None:
    assert resolved(B200, f"engine={engine}", f"environment.{name}=1").environment[name] == "1"


def test_a_cpu_profile_runs_in_docker_too() -> None:
    found = resolved(CPU, "engine=vllm-0.19.1-cpu-docker", "image=example.test/cpu:1")
    assert (found.engine.runtime, found.engine.image) == ("docker", "example.test/cpu:1")


@pytest.mark.parametrize("name", RESERVED_OPTIONS)
def test_reserved_options_raise_from_every_source(name: str) -> None:
    assert f"serve.{name} cannot be set" in refusal(SPARK, f"serve.{name}=x").message
    profile = SPARK.model_copy(update={"serve": {**SPARK.serve, name: "x"}})
    assert f"serve.{name} cannot be set" in refusal(profile).message


@pytest.mark.parametrize(
    "setting", ["spec-method=extract_hidden_states", "spec-model=/models/x", "spec-tokens=2"]
)
def test_short_speculative_options_are_reserved(setting: str) -> None:
    """0.32.0's short options set speculative-config, which only its long name shows to the checks."""
    assert "use --drafter" in refusal(B200, "engine=vllm-0.32.0", setting).message


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_secret_variables_raise(name: str) -> None:
    message = refusal(SPARK, f"environment.{name}=hunter2").message
    assert message.startswith(f"environment.{name} cannot be set")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("profile", "settings", "message"),
    [
        (SPARK, ["model=deckard"], "no model named 'deckard'; did you mean"),
        (SPARK, ["engine=vllm"], "no engine named 'vllm'"),
        (SPARK, ["model=deckard-e4b"], "deckard-e4b is a drafter"),
        (
            SPARK,
            ["drafter=tiny-gemma4"],
            "tiny-gemma4 is not a drafter; deckard-31b has: gemma-4-31b-assistant,",
        ),
        (
            CPU,
            ["drafter=deckard-e4b"],
            "deckard-e4b does not draft for tiny-gemma4; it has: tiny-assistant, tiny-ngram",
        ),
        (SPARK, ["engine=aeon-awq", "drafter=deckard-e4b"], "aeon-awq cannot draft with deckard-e4b"),
        (SPARK, ["drafter=deckard-e4b", 'speculative-config={"method": "ngram"}'], "exclude each other"),
        (B200, ["engine=aeon-awq"], "aeon-awq is for arm64, b200 is amd64"),
        (THOR, ["engine=aeon-awq"], "aeon-awq is built for compute capability 12.1, thor has 11.0"),
        (
            SPARK,
            ["engine=aeon-awq", "model=deckard-31b-svdquant"],
            "aeon-awq cannot load deckard-31b-svdquant",
        ),
        (
            CPU,
            ["model=deckard-31b"],
            f"vllm-0.19.1-cpu cannot load deckard-31b; these can: {', '.join(LOADS_31B)}",
        ),
        (CPU, ["engine=vllm-0.32.0"], "vllm-0.32.0 needs a GPU, cpu has none; without: vllm-0.19.1-cpu"),
        (SPARK, ["nnodes=2"], "serve.nnodes cannot be set: a deployment is on one machine"),
        (SPARK, ["environment.VLLM_CACHE_ROOT=/usr/x"], "cannot be set: /usr is the image's"),
        (SPARK, ["max-model-len=262145"], "--max-model-len 262145 is more than deckard-31b's 262144 tokens"),
        (SPARK, ["max-model-len=0"], "a context holds at least one token"),
        (SPARK, ["block-size=0"], "--block-size 0: a value >= 1 was expected"),
        (B200, ["tensor-parallel-size=0"], "--tensor-parallel-size 0: a value >= 1 was expected"),
        (B200, ["pipeline-parallel-size=-1"], "--pipeline-parallel-size -1: a value >= 1 was expected"),
        (SPARK, ["tensor-parallel-size=2"], "--tensor-parallel-size 2 needs 2 GPUs, and spark has 1"),
        (
            SPARK,
            ["data-parallel-size=4", "tensor-parallel-size=2"],
            "--tensor-parallel-size 2 --data-parallel-size 4 needs 8 GPUs, and spark has 1",
        ),
        (B200, ["tensor-parallel-size=64"], "does not divide deckard-31b's 32 attention heads"),
        (
            B200,
            ["data-parallel-size=8", "data-parallel-size-local=4"],
            "--data-parallel-size-local 4 of --data-parallel-size 8: a deployment is on one machine",
        ),
        (B200, ["data-parallel-backend=ray"], "on one machine, without Ray"),
        (B200, ["data-parallel-external-lb=true"], "the endpoint is one for all ranks"),
        (B200, ["enable-expert-parallel=true"], "deckard-31b has no experts"),
        (
            B200,
            ["drafter=deckard-e4b", "tensor-parallel-size=16"],
            "does not divide deckard-e4b's 8 attention heads",
        ),
        (SPARK, ["max-num-seqz=1"], "vLLM 0.19.1 has no option --max-num-seqz; did you mean 'max-num-seqs'?"),
        (SPARK, ["kv-cache-dtype=fp4"], "did you mean 'fp8'?"),
        (SPARK, ["environment.VLLM_LOGGIN_LEVEL=x"], "did you mean 'VLLM_LOGGING_LEVEL'?"),
        (B200, ["environment.TORCH_MATMUL_PRECISION=high"], "nothing in vLLM 0.19.1 reads the variable"),
    ],
)
def test_incompatible_parts_raise_one_line(
    profile: HardwareProfile, settings: list[str], message: str
) -> None:
    assert message in refusal(profile, *settings).message


@pytest.mark.parametrize("length", ["262144", "auto", "-1"])
def test_context_at_model_limit_passes(length: str) -> None:
    assert str(resolved(SPARK, f"max-model-len={length}").serve["max-model-len"]) == length


def test_too_long_context_has_hint() -> None:
    assert refusal(SPARK, "max-model-len=1000000").hint == "--set max-model-len=262144"


def test_compat_replaces_profile_and_model() -> None:
    found = resolved(SPARK, seed=True)
    assert found.serve == SEED.serve
    assert found.environment == SEED.environment
    assert (found.container.network, found.publish.address) == ("host", "0.0.0.0")
    assert found.engine.name == "aeon-awq"
    assert resolved(SPARK, "max-num-seqs=8", seed=True).serve == {**SEED.serve, "max-num-seqs": 8}


@pytest.mark.parametrize(
    ("profile", "settings", "message"),
    [
        (B200, [], "--compat seed is for profile 'spark', not 'b200'"),
        (SPARK, ["model=deckard-31b-svdquant"], "--compat seed is for model 'deckard-31b'"),
        (SPARK, ["engine=vllm-0.19.1"], "--compat seed is for engine 'aeon-awq'"),
        (SPARK, ["drafter=deckard-e4b"], "--compat seed is for drafter 'none'"),
        (SPARK, ["publish.port=9000"], "--compat seed keeps its own address"),
    ],
)
def test_compat_conflicts_raise(profile: HardwareProfile, settings: list[str], message: str) -> None:
    assert message in refusal(profile, *settings, seed=True).message


def test_compat_accepts_its_own_names() -> None:
    settings: list[Any] = ["model=deckard-31b", "engine=aeon-awq", "drafter=none"]
    assert resolved(SPARK, *settings, seed=True) == resolved(SPARK, seed=True)


def test_empty_deployment_is_the_profile() -> None:
    assert resolve(Deployment(), profile=SPARK) == resolved(SPARK)


EMBEDDER = library.model("gemma-4-e2b-it").model_copy(
    update={
        "name": "mine", "size_gb": 1.2, "drafters": (), "served_by": (), "quantization": "none",
        "serve": {"runner": "pooling", "convert": "embed", "max-model-len": None},
    }
)  # fmt: skip


@pytest.mark.parametrize(("convert", "name"), [("embed", "spark-embed"), ("classify", "spark-score")])
def test_model_of_vectors_stands_next_to_chat_model(convert: str, name: str) -> None:
    model = EMBEDDER.model_copy(update={"serve": {**EMBEDDER.serve, "convert": convert}})
    found = resolve(Deployment(), profile=library.profile("spark"), model=model)
    assert found.name == name
    assert "max-model-len" not in found.serve
    # 1.2 GB of weights, 8.7 GiB for the engine, of 121.69 GiB.
    assert found.serve["gpu-memory-utilization"] == 0.09


def test_share_and_name_of_the_user_stay() -> None:
    asked = Deployment(name="mine", serve={"gpu-memory-utilization": 0.3})
    found = resolve(asked, profile=library.profile("spark"), model=EMBEDDER)
    assert (found.name, found.serve["gpu-memory-utilization"]) == ("mine", 0.3)
    own = EMBEDDER.model_copy(update={"serve": {**EMBEDDER.serve, "gpu-memory-utilization": 0.25}})
    assert (
        resolve(Deployment(), profile=library.profile("spark"), model=own).serve["gpu-memory-utilization"]
        == 0.25
    )
    on_cpu = resolve(Deployment(engine="vllm-0.32.0-cpu"), profile=library.profile("cpu"), model=EMBEDDER)
    assert on_cpu.serve["gpu-memory-utilization"] == 0.9  # as vLLM has it; a CPU has no share to give


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        (["gpu-memory-utilization=0.95"], "gpu-memory-utilization 0.95 leaves 6.1 GiB of the unified memory"),
        (["gpu-memory-utilization=0.8"], None),
        (
            ["image=vllm/vllm-openai:latest"],
            "image vllm/vllm-openai:latest: each pull may bring another release",
        ),
        (["image=vllm/vllm-openai:v0.33.0"], None),
    ],
)
def test_risk_of_setting_is_noted(settings: list[str], note: str | None) -> None:
    """A Spark whose GPU takes nearly all of the memory freezes, and `plan` said only that it fits."""
    found = choice("spark", *settings).notes
    assert [each.startswith(note or "nothing") for each in found] == ([True] if note else [])
