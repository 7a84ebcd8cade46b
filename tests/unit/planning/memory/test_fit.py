"""The memory of known deployments, and the sources of the figures."""

import pytest

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.planning.memory.changes import smallest_changes
from deckard_deploy.planning.memory.fit import RESERVE, MemoryPlan, memory_of, with_serve
from deckard_deploy.planning.memory.parts import (
    BatchShape,
    EarlierStart,
    HostMeasurements,
    Level,
)
from deckard_deploy.planning.memory.settings import GIB, UnknownMemoryError
from tests.support.sample_choices import choice


def memory(profile: str, *changes: str, available: int | None = None) -> MemoryPlan:
    return memory_of(choice(profile, *changes), available=available)


def test_64k_sequence_takes_12_gib() -> None:
    assert f"{memory('spark').bytes_per_sequence / GIB:.2f}" == "12.04"


def test_b200_holds_15_of_16_full_sequences() -> None:
    found = memory("b200")
    assert 15.0 < found.concurrency < 15.3
    assert found.verdict == "fits"
    assert found.sequences(131_072) > found.concurrency


def test_weights_include_copied_value_projections() -> None:
    (weights, *_) = memory("spark").parts
    copied = 10 * 5376 * 4 * 512 * 0.5625
    assert weights.expected == int(20.45e9) + copied == weights.low == weights.high


def test_measured_weights_replace_catalog_size() -> None:
    found = memory_of(
        choice("spark"),
        known=HostMeasurements(weight_bytes={"deckard-31b": {"language": 9 * 10**8, "vision": 10**8}}),
    )
    assert found.parts[0].source == (
        "its tensors: language 0.8 GiB, vision 95 MiB; "
        "and 59 MiB that vLLM copies (a full layer's keys for its values)"
    )
    assert found.parts[0].expected == 10**9 + 10 * 5376 * 4 * 512 * 0.5625
    assert found.parts[0].expected < 2 * 10**9


def test_two_ranks_halve_weights_and_heads() -> None:
    one, two = memory("b200"), memory("b200", "tensor-parallel-size=2")
    assert two.parts[0].expected == one.parts[0].expected // 2
    assert two.bytes_per_sequence == one.bytes_per_sequence // 2


def test_drafter_takes_memory() -> None:
    without, found = memory("spark"), memory("spark", "drafter=deckard-e4b")
    assert [part.name for part in found.parts] == ["weights", "drafter", "engine", "CUDA graphs"]
    assert found.bytes_per_sequence > without.bytes_per_sequence
    assert found.kv_bytes() < without.kv_bytes() - 9 * 10**9


def test_utilization_bounds_discrete_gpu() -> None:
    found = memory("b200")
    assert found.ceiling() == found.requested == pytest.approx(178.35 * 0.85 * GIB)
    assert found.kv_bytes() == found.ceiling() - found.parts[0].expected - int(3.4 * GIB)
    assert [part.name for part in memory("b200", "enforce-eager=true").parts] == ["weights", "engine"]


def test_free_memory_bounds_unified_machine() -> None:
    found = memory("spark", available=100 * GIB)
    assert found.ceiling() == 100 * GIB - RESERVE
    assert memory("spark").ceiling() > found.ceiling()


def test_memory_that_others_leave_bounds_gpu() -> None:
    shared = memory(
        "b200", "gpu-memory-utilization=0.5", "kv-cache-memory-bytes=1073741824", available=60 * GIB
    )
    assert shared.ceiling() == 60 * GIB
    assert "free when it starts, and 60.0 GiB are" in shared.problem()
    (lower, *_) = smallest_changes(
        choice("b200", "gpu-memory-utilization=0.5"), memory("b200", available=60 * GIB)
    )
    assert any("gpu-memory-utilization=0.3" in option for option in lower.options)


def test_requested_memory_must_be_free() -> None:
    found = memory("spark", available=90 * GIB)  # 0.8 of 121.69 GiB are 97.4
    assert "97.4 GiB free" in found.problem()
    assert found.verdict == "no"


@pytest.mark.parametrize("available", [104 * GIB, 110 * GIB, 117 * GIB])
def test_measured_kv_bytes_ignores_small_changes(available: int) -> None:
    found = memory("spark", available=available)
    assert found.measured_kv_bytes() == 4 * found.bytes_per_sequence


def test_measured_kv_bytes_is_whole_sequences() -> None:
    found = memory("spark", "max-num-seqs=64", available=104 * GIB)
    size = found.measured_kv_bytes()
    assert size is not None
    assert size % found.bytes_per_sequence == 0
    assert size <= found.kv_bytes() < size + found.bytes_per_sequence
    assert memory("spark", "gpu-memory-utilization=0.2").measured_kv_bytes() is None


def test_given_kv_size_leaves_memory_for_graphs() -> None:
    """No part is sized by the rest of the memory then, so all parts must fit."""
    weights, engine, graphs = memory("b200").parts
    room = int(178.35 * GIB) - weights.expected - engine.expected
    assert memory("b200", f"kv-cache-memory-bytes={room - graphs.expected - 1}").problem() == ""
    assert memory("b200", f"kv-cache-memory-bytes={room - graphs.expected // 2}").verdict == "doubtful"


def test_given_kv_size_is_exact() -> None:
    size = 4 * memory("spark").bytes_per_sequence
    found = memory("spark", f"kv-cache-memory-bytes={size}")
    assert (found.kv_bytes(), found.kv_bytes(Level.LOW)) == (size, size)
    assert found.concurrency == 4.0
    assert found.verdict == "fits"
    assert memory("spark", f"kv-cache-memory-bytes={100 * GIB}").verdict == "no"


def test_cpu_kv_size_is_the_variable() -> None:
    found = memory("cpu", "environment.VLLM_CPU_KVCACHE_SPACE=2")
    assert found.kv_bytes() == 2 * GIB
    assert memory("cpu").tokens == 349_440
    assert f"{memory('cpu').concurrency:.2f}" == "309.13"
    assert found.problem() == ""


def test_newer_engine_subtracts_null_block() -> None:
    """Exactly the size of one sequence starts 0.19.1 but not 0.32.0; one more block starts both."""
    for engine in ("vllm-0.19.1-cpu", "vllm-0.32.0-cpu"):
        found = memory("cpu", f"engine={engine}")
        block, sequence = (
            found.cache.block_bytes,
            found.cache.sequence_bytes(1024, found.settings.tokens_in_flight),
        )
        newer = "0.32" in engine
        assert (found._replace(fixed_kv_bytes=sequence).problem() != "") is newer
        assert found._replace(fixed_kv_bytes=sequence + block).problem() == ""
        assert found._replace(fixed_kv_bytes=sequence + block).longest(1024) == 1024
        assert (found._replace(fixed_kv_bytes=sequence).longest(1024) < 1024) is newer


def test_verdict_between_range_ends_is_doubtful() -> None:
    assert memory("rtx-5090").verdict == "fits"
    assert memory("rtx-5090", "max-model-len=131072").verdict == "doubtful"
    assert memory("rtx-5090", "max-model-len=262144", "kv-cache-dtype=auto").verdict == "no"
    assert "a sequence of 131,072 tokens" in memory("rtx-5090", "max-model-len=131072").problem()


@pytest.mark.parametrize(
    "resolved",
    [choice("thor"), choice("cpu", "environment.VLLM_CPU_KVCACHE_SPACE=null")],
    ids=["thor", "cpu without a limit"],
)
def test_unknown_memory_raises(resolved: Resolved) -> None:
    with pytest.raises(UnknownMemoryError):
        memory_of(resolved)


def test_with_serve_changes_options_by_name() -> None:
    changed = with_serve(choice("spark"), max_model_len=None, kv_cache_dtype="fp8")
    assert "max-model-len" not in changed.serve
    assert changed.serve["kv-cache-dtype"] == "fp8"


def planned_step(profile: str, *changes: str) -> BatchShape:
    return memory(profile, *changes).step


def with_starts(*starts: EarlierStart, changes: tuple[str, ...] = ()) -> MemoryPlan:
    return memory_of(choice("b200", *changes), known=HostMeasurements(starts=starts))


def test_earlier_starts_replace_assumptions() -> None:
    step = planned_step("b200")
    found = with_starts(*(EarlierStart(step=step, engine=size * GIB, graphs=None) for size in (3, 2, 7)))
    _, engine, graphs = found.parts
    assert (engine.low, engine.expected, engine.high) == (2 * GIB, 3 * GIB, 7 * GIB)
    assert (engine.measured, engine.source) == (True, "measured on this host, in 3 earlier starts")
    assert not graphs.measured
    assert found.kv_bytes() == memory("b200").kv_bytes() + int(3.4 * GIB) - 3 * GIB


@pytest.mark.parametrize(
    "change", ["max-num-batched-tokens=2048", "max-num-seqs=2", "tensor-parallel-size=2"]
)
def test_start_with_other_step_is_ignored(change: str) -> None:
    earlier = EarlierStart(step=planned_step("b200"), engine=GIB, graphs=GIB)
    assert with_starts(earlier).parts[1].measured
    assert not with_starts(earlier, changes=(change,)).parts[1].measured


def test_start_with_other_drafter_is_ignored() -> None:
    step = planned_step("b200", "drafter=deckard-e4b")
    assert step.drafter == "deckard-e4b"
    assert not with_starts(EarlierStart(step=step, engine=GIB, graphs=GIB)).parts[1].measured
