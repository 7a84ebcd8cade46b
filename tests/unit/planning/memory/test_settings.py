"""Settings that vLLM derives from its options: engine/arg_utils.py and platforms/cpu.py of 0.19.1."""

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.settings import CacheSettings, UnknownMemoryError, cache_settings
from tests.support.sample_choices import choice


def settings(profile: str, *changes: str) -> CacheSettings:
    return cache_settings(choice(profile, *changes))


@pytest.mark.parametrize(
    ("profile", "changes", "sequences", "in_flight"),
    [
        ("spark", (), 4, 8192),
        ("b200", (), 16, 8192),
        ("b200", ("max-num-batched-tokens=null",), 16, 8192),  # 70 GiB or more
        ("b200", ("max-num-batched-tokens=null", "engine=vllm-0.32.0"), 16, 16_384),  # 160 GiB or more
        ("h200", ("max-num-batched-tokens=null", "engine=vllm-0.32.0"), 8, 8192),
        ("b200", ("max-num-batched-tokens=null", "engine=vllm-0.33.0"), 16, 16_384),
        ("b200", ("engine=vllm-0.32.0", "max-num-batched-tokens=4096"), 16, 4096),
        # A GB10 has the memory of the large GPUs, and the batch of the small ones.
        ("spark", ("engine=vllm-0.33.0", "max-num-batched-tokens=null"), 4, 2048),
        ("spark", ("engine=vllm-0.19.1", "max-num-batched-tokens=null"), 4, 8192),
        ("b200", ("max-num-batched-tokens=4096",), 16, 4096),
        (
            "b200",
            (
                "max-num-batched-tokens=null",
                "performance-mode=throughput",
            ),
            16,
            16_384,
        ),
        ("b200", ("max-num-batched-tokens=null", "max-num-seqs=null"), 1024, 8192),
        ("b200", ("max-num-seqs=null", "max-num-batched-tokens=512"), 512, 512),
        ("rtx-5090", ("max-num-batched-tokens=null",), 2, 2048),  # less than 70 GiB
        # At most the tokens of all sequences.
        ("rtx-5090", ("max-num-batched-tokens=null", "max-model-len=512"), 2, 1024),
        (
            "b200",
            (
                "max-num-batched-tokens=null",
                "enable-chunked-prefill=false",
            ),
            16,
            131_072,
        ),
        ("cpu", (), 4, 2048),
        ("cpu", ("tensor-parallel-size=2",), 4, 4096),
    ],
)
def test_batch_limits_follow_vllm_defaults(
    profile: str, changes: tuple[str, ...], sequences: int, in_flight: int
) -> None:
    found = settings(profile, *changes)
    assert (found.max_num_seqs, found.in_flight) == (sequences, in_flight)


@pytest.mark.parametrize(
    ("profile", "changes", "message"),
    [
        ("spark", ("max-num-seqs=10000",), "max-num-batched-tokens is 8192, less than max-num-seqs 10000"),
        ("b200", ("max-num-seqs=10000",), "max-num-batched-tokens is 8192, less than max-num-seqs 10000"),
        (
            "spark",
            ("enable-chunked-prefill=false",),
            "less than max-model-len 65536: without chunked prefill",
        ),
    ],
)
def test_batch_limits_that_vllm_refuses_raise(profile: str, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        settings(profile, *changes)


@pytest.mark.parametrize(
    ("profile", "changes", "expected"),
    [
        ("spark", (), 2),
        ("b200", (), 1),
        ("spark", ("kv-cache-dtype=fp8_e5m2",), 1),
        ("spark", ("kv-cache-dtype=float16",), 2),
        ("spark", ("dtype=float32",), 4),
        ("cpu", ("kv-cache-dtype=fp8",), 2),  # a CPU falls back to auto
    ],
)
def test_element_bytes_follow_dtype(profile: str, changes: tuple[str, ...], expected: int) -> None:
    assert settings(profile, *changes).element_bytes == expected


def test_zero_cpu_offload_changes_nothing() -> None:
    assert settings("rtx-5090", "cpu-offload-gb=0") == settings("rtx-5090")


def test_block_size_is_default_or_option() -> None:
    assert [settings(profile).block_size for profile in ("spark", "cpu")] == [16, 128]
    assert settings("cpu", "block-size=32").block_size == 32


def test_hybrid_unless_disabled() -> None:
    assert settings("spark").hybrid
    assert not settings("spark", "disable-hybrid-kv-cache-manager=true").hybrid


@pytest.mark.parametrize(
    ("profile", "changes", "steps"),
    [
        ("spark", ("engine=vllm-0.19.1",), 1),
        ("spark", ("engine=vllm-0.32.0",), 2),
        ("spark", ("engine=vllm-0.32.0", "drafter=mtp"), 2),
        ("spark", ("engine=vllm-0.33.0",), 2),
        ("spark", ("engine=vllm-0.32.0", "drafter=ngram"), 1),
        ("spark", ("engine=vllm-0.32.0", "async-scheduling=false"), 1),
        ("cpu", ("engine=vllm-0.32.0-cpu",), 1),
    ],
)
def test_unsettled_steps_by_engine(profile: str, changes: tuple[str, ...], steps: int) -> None:
    found = settings(profile, *changes)
    assert (found.steps, found.tokens_in_flight) == (steps, steps * found.in_flight)


@pytest.mark.parametrize(
    ("profile", "change"),
    [
        ("b200", "pipeline-parallel-size=2"),
        ("spark", "num-gpu-blocks-override=100"),
        ("rtx-5090", "cpu-offload-gb=10"),
        ("spark", "max-model-len=auto"),
        ("spark", "kv-cache-dtype=fp8_ds_mla"),
        ("thor", "max-num-batched-tokens=null"),
    ],
)
def test_unsupported_options_raise(profile: str, change: str) -> None:
    with pytest.raises(UnknownMemoryError):
        settings(profile, change)


@pytest.mark.parametrize("kind", ["nvfp4", "int8_per_token_head", "fp8_per_token_head", "turboquant_4bit_nc"])
def test_quantized_caches_of_0_32_0_raise(kind: str) -> None:
    with pytest.raises(UnknownMemoryError, match=kind):
        settings("b200", "engine=vllm-0.32.0", f"kv-cache-dtype={kind}")
