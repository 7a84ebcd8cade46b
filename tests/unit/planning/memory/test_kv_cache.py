"""The KV cache against figures of vLLM 0.19.1; tests/e2e/test_kv_oracle.py compares thousands more."""

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.kv_cache import KvCache, LayerKv, kv_cache
from deckard_deploy.planning.memory.settings import CacheSettings, layers_of

SETTINGS = CacheSettings(
    max_model_len=65_536,
    max_num_seqs=4,
    in_flight=8192,
    block_size=16,
    element_bytes=2,
    tensor_parallel=1,
    hybrid=True,
)
FP8 = SETTINGS._replace(element_bytes=1)


def cache(*models: str, settings: CacheSettings = SETTINGS) -> KvCache:
    layers = [layer for name in models for layer in layers_of(library.model(name).architecture, settings)]
    return kv_cache(layers, hybrid=settings.hybrid)


@pytest.mark.parametrize(
    ("length", "in_flight", "settings", "expected"),
    [
        (65_536, 8192, SETTINGS, 12_931_563_520),  # 12.04 GiB
        (65_536, 8192, FP8, 12_931_563_520 // 2),
        (65_536, 2048, SETTINGS, 7_898_398_720),
        (131_072, 8192, SETTINGS, 18_300_272_640),
        (262_144, 8192, SETTINGS, 29_037_690_880),
        (262_144, 16_384, SETTINGS, 13_637 * 2_621_440),
        (65_536, 8192, SETTINGS._replace(hybrid=False), 55 * 2**30),
    ],
)
def test_one_sequence_of_the_31b(length: int, in_flight: int, settings: CacheSettings, expected: int) -> None:
    assert cache("deckard-31b", settings=settings).sequence_bytes(length, in_flight) == expected


def test_31b_is_six_groups_of_ten_layers() -> None:
    found = cache("deckard-31b")
    assert [(len(group.layers), group.block_size) for group in found.groups] == [(10, 16)] * 5 + [(10, 32)]
    assert found.block_bytes == 2_621_440


def test_one_sequence_of_the_26b() -> None:
    # 30 layers, 25 of them sliding; 8 and 2 KV heads: config.json of Gemma 4 26B-A4B
    numbers = {"layers": 30, "sliding_layers": 25, "kv_heads": 8, "global_kv_heads": 2}
    shape = library.model("deckard-31b").architecture.model_copy(update=numbers)
    found = kv_cache(layers_of(shape, SETTINGS))
    assert found.sequence_bytes(65_536, 8192) == pytest.approx(3.011 * 2**30, rel=1e-4)


def test_shared_layers_own_no_cache() -> None:
    found = cache("deckard-e4b")
    assert sum(len(group.layers) for group in found.groups) == 24
    assert found.sequence_bytes(131_072, 8192) == pytest.approx(2.333 * 2**30, rel=1e-3)


def test_drafter_makes_22_padded_groups() -> None:
    found = cache("deckard-31b", "deckard-e4b", settings=FP8)
    assert len(found.groups) == 22
    assert {len(group.layers) for group in found.groups} == {3, 4}
    assert found.sequence_bytes(131_072, 8192) == pytest.approx(10.831 * 2**30, rel=1e-4)


def test_figures_match_cpu_log() -> None:
    # tests/unit/startup/logs/ready.eager.log: 1 GiB, 1,024 tokens
    found = cache("tiny-gemma4", settings=SETTINGS._replace(block_size=128))
    blocks = found.blocks(2**30)
    assert found.tokens(blocks) == 349_440
    assert f"{found.concurrency(blocks, 1024, 2048):.2f}" == "309.13"


def test_longest_matches_engine_estimate() -> None:
    found = cache("deckard-31b")
    assert found.longest(5 * 2**30, 262_144, 8192) == 5936  # in its refusal of 262,144 tokens in 5 GiB
    assert found.longest(0, 262_144, 8192) == 0


def test_more_sequences_fit_than_vllm_counts() -> None:
    found = cache("deckard-31b")
    blocks = found.blocks(48 * 2**30)
    assert found.sequences(blocks, 65_536, 8192) > found.concurrency(blocks, 65_536, 8192)
    assert found.sequences(blocks, 65_536, 1) == blocks // found.sequence_blocks(65_536, 1)
    assert found.sequences(0, 65_536, 8192) == 0


def test_uniform_models_are_one_group() -> None:
    full = LayerKv(heads=8, head_size=128, element_bytes=2, block_size=16)
    found = kv_cache([full] * 32)
    assert (len(found.groups), found.block_bytes) == (1, 32 * 65_536)
    assert found.sequence_bytes(4096, 8192) == 4096 * 32 * 4096
    wider = full._replace(heads=16)
    assert kv_cache([full, wider]).block_bytes == 65_536 + 131_072
    sliding = full._replace(window=1024)
    assert kv_cache([sliding] * 32).sequence_blocks(65_536, 1) == 65


def test_layouts_that_vllm_refuses_raise() -> None:
    with pytest.raises(BadInputError, match="512 and 1024"):
        cache("deckard-31b", "deckard-e4b", settings=SETTINGS._replace(hybrid=False))
    full = LayerKv(heads=3, head_size=128, element_bytes=2, block_size=16)
    with pytest.raises(BadInputError, match="do not divide"):
        kv_cache([full, full._replace(heads=2, window=1024)])


def test_every_rank_has_at_least_one_head() -> None:
    heads = [layer.heads for layer in layers_of(library.model("tiny-gemma4").architecture, SETTINGS)]
    shared = layers_of(library.model("tiny-gemma4").architecture, SETTINGS._replace(tensor_parallel=2))
    assert heads == [2, 2, 2, 2, 2, 1]
    assert [layer.heads for layer in shared] == [1] * 6
