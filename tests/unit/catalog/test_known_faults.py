"""Combinations that a release of vLLM gets wrong."""

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.known_faults import Parts, refuse_known_faults
from deckard_deploy.catalog.listing import names
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, EngineSpec, ModelSpec, Serve
from deckard_deploy.errors import BadInputError
from tests.support.sample_choices import choice

KERNEL = "FlashInferCuteDslNvFp4W4A16LinearKernel"


def release(version: str) -> EngineSpec:
    return library.engine("vllm-0.33.0").model_copy(update={"vllm_version": version})


def drafter(context: int | None) -> ModelSpec:
    return library.model("gemma-4-31b-dflash").model_copy(update={"context_limit": context})


def parts(
    version: str = "0.33.0",
    *,
    profile: str = "spark",
    model: str = "deckard-31b",
    drafter: ModelSpec | None = None,
    kernels: str | None = None,
    length: int = 65536,
) -> Parts:
    environment = {} if kernels is None else {"VLLM_DISABLED_KERNELS": kernels}
    serve: Serve = {"max-model-len": length}
    return Parts(
        library.profile(profile), library.model(model), drafter, release(version), serve, environment
    )


@pytest.mark.parametrize("profile", ["spark", "rtx-5090", "rtx-pro-6000"])
@pytest.mark.parametrize("dtype", ["nvfp4", "nvfp4_4over6"])
def test_nvfp4_cache_is_refused_on_sm12x(profile: str, dtype: str) -> None:
    with pytest.raises(BadInputError, match=f"--kv-cache-dtype {dtype} on compute capability 12"):
        choice(profile, "engine=vllm-0.33.0", f"kv-cache-dtype={dtype}")


def test_nvfp4_cache_is_accepted_elsewhere() -> None:
    assert choice("b200", "engine=vllm-0.33.0", "kv-cache-dtype=nvfp4").serve["kv-cache-dtype"] == "nvfp4"
    assert choice("spark", "engine=vllm-0.33.0", "kv-cache-dtype=fp8").serve["kv-cache-dtype"] == "fp8"


@pytest.mark.parametrize("kernels", [None, "", "MarlinNvFp4LinearKernel"])
def test_slow_kernel_of_0_29_is_refused(kernels: str | None) -> None:
    with pytest.raises(BadInputError, match=r"vLLM 0\.29\.0 takes a slow kernel") as refused:
        refuse_known_faults(parts("0.29.0", kernels=kernels))
    assert f"VLLM_DISABLED_KERNELS={KERNEL}" in str(refused.value.hint)


@pytest.mark.parametrize(
    "right",
    [
        parts("0.28.0"),
        parts("0.30.0"),
        parts("0.29.0", profile="h200"),
        parts("0.29.0", model="gemma-4-31b-it"),
        parts("0.29.0", kernels=f"A,{KERNEL}"),
    ],
)
def test_other_kernels_are_accepted(right: Parts) -> None:
    assert refuse_known_faults(right) == ()


@pytest.mark.parametrize("version", ["0.29.0", "0.32.0"])
def test_request_longer_than_drafter_is_refused(version: str) -> None:
    with pytest.raises(
        BadInputError, match="65536 is more than the 40960 tokens of gemma-4-31b-dflash"
    ) as refused:
        refuse_known_faults(parts(version, drafter=drafter(40960), kernels=KERNEL))
    assert "max-model-len=40960" in str(refused.value.hint)


def test_length_of_drafter_is_accepted() -> None:
    assert refuse_known_faults(parts("0.32.0", drafter=drafter(40960), length=40960)) == ()
    assert refuse_known_faults(parts("0.33.0", drafter=drafter(40960))) == ()
    assert refuse_known_faults(parts("0.32.0", drafter=library.model("gemma-4-31b-assistant"))) == ()


def test_unknown_length_of_drafter_is_a_note() -> None:
    found = choice("h200", "engine=vllm-0.32.0", "drafter=dflash").notes
    assert [note for note in found if "which is not known, ends vLLM 0.32.0" in note]
    assert choice("h200", "engine=vllm-0.33.0", "drafter=dflash").notes == ()


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_expandable_segments_are_a_note_on_a_spark(name: str) -> None:
    deployment = Deployment(environment={name: "expandable_segments:True"})
    (note,) = resolve(deployment, profile=library.profile("spark")).notes
    assert note.startswith(f"environment.{name}: with expandable segments")
    assert resolve(deployment, profile=library.profile("h200")).notes == ()
    assert resolve(Deployment(), profile=library.profile("spark")).notes == ()


@pytest.mark.parametrize("name", [name for name in names("profiles") if name != "cpu"])
def test_profile_of_gpu_sets_the_batch(name: str) -> None:
    """The KV cache and the sizes of the CUDA graphs follow from both; vLLM's own defaults differ by GPU and release."""
    assert {"max-num-seqs", "max-num-batched-tokens"} <= library.profile(name).serve.keys()
