"""patches/vllm-0.19.1/eagle.patch: each draft layer writes and reads the blocks of its own KV cache group.

Runs with pytest and hypothesis under any Python that has vLLM 0.19.1; no GPU is needed. vLLM brings anyio, whose
pytest plugin warns with pytest 9: `python -m pytest -p no:anyio tests/e2e/test_eagle_patch.py`.
"""

import functools
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from deckard_deploy.patching import unified_diff
from tests.e2e.eagle_rig import (
    MAX_REQUESTS,
    PAD,
    Group,
    Request,
    Rig,
    check,
    fill,
    kv_cache_config,
    make_rig,
    propose,
)

torch = pytest.importorskip("torch")
stock = pytest.importorskip("vllm.v1.spec_decode.eagle")
kv_cache_interface = pytest.importorskip("vllm.v1.kv_cache_interface")
kv_cache_utils = pytest.importorskip("vllm.v1.core.kv_cache_utils")
worker_utils = pytest.importorskip("vllm.v1.worker.utils")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("default"),  # vLLM's imports warn
]
PATCH = Path(__file__).parents[2] / "patches" / "vllm-0.19.1" / "eagle.patch"
BASE_SHA256 = "08005ca174a5d29895de8c4edfa19af3421ab3f2747f691da3e9f45aa5c68c34"
settings = hypothesis.settings(
    max_examples=150, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="session")
def patched_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The importable vLLM's eagle.py with our patch applied."""
    base = Path(stock.__file__).read_bytes()
    if hashlib.sha256(base).hexdigest() != BASE_SHA256:
        pytest.skip("the installed vLLM's eagle.py is not that of 0.19.1")
    target = tmp_path_factory.mktemp("patched") / "eagle.py"
    diff = unified_diff.parse(PATCH.read_text(), source=PATCH.name)
    target.write_text(unified_diff.apply(diff, base.decode()))
    return target


@pytest.fixture(scope="session")
def eagle(patched_file: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("patched_eagle", patched_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def draw_groups(draw: Callable[..., Any]) -> list[Group]:
    groups = []
    for gid in range(draw(st.integers(2, 5))):
        kernel = draw(st.sampled_from([16, 32, 64]))
        layers = tuple(f"draft.{gid}.{index}" for index in range(draw(st.integers(0, 2))))
        groups.append(Group(kernel * draw(st.sampled_from([1, 2, 4])), kernel, layers))
    last = groups.pop()
    return [*groups, Group(last.block_size, last.kernel_block_size, (*last.draft_layers, "draft.last"))]


def draw_requests(draw: Callable[..., Any], max_model_len: int, tokens: int) -> list[Request]:
    requests = []
    for _ in range(draw(st.integers(1, MAX_REQUESTS))):
        query = draw(st.integers(1, 40))
        computed = draw(st.integers(0, max_model_len - query))
        rejected = draw(st.integers(0, query - 1))
        requests.append(Request(computed, query, rejected, draw(st.sampled_from([0, tokens]))))
    return requests


@settings
@hypothesis.given(data=st.data())
def test_draft_layer_uses_blocks_of_its_group(
    data: Any, eagle: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    max_model_len, tokens = data.draw(st.integers(60, 300)), data.draw(st.sampled_from([1, 2, 5]))
    rig = make_rig(eagle, data.draw(st.composite(draw_groups)()), tokens=tokens, max_model_len=max_model_len)
    requests = data.draw(st.composite(draw_requests)(max_model_len, tokens))
    fill(rig, requests)
    drafts = propose(eagle, rig, requests, monkeypatch)
    assert drafts.shape == (len(requests), tokens)
    check(rig, requests)


PAIR = (Group(16, 16), Group(32, 16, ("draft.a", "draft.b")), Group(64, 64, ("draft.c",)))
BATCH = (Request(0, 31), Request(40, 6, rejected=2, lookahead=5), Request(290, 8, lookahead=5))


@pytest.fixture
def pair(eagle: ModuleType) -> Rig:
    fill(rig := make_rig(eagle, PAIR, tokens=5, max_model_len=300), BATCH)
    return rig


def test_check_passes_for_pair(pair: Rig, eagle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    propose(eagle, pair, BATCH, monkeypatch)
    check(pair, BATCH)


def test_check_fails_on_group_0_for_all(
    pair: Rig, eagle: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the published patch does."""
    pair.proposer.runner.input_batch.block_table = [pair.block_tables[0]] * len(PAIR)
    propose(eagle, pair, BATCH, monkeypatch)
    with pytest.raises(AssertionError, match=r"slots of draft\.a"):
        check(pair, BATCH)


def test_check_fails_on_one_block_size(pair: Rig, eagle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.proposer.draft_kv_cache_groups[2].block_size = 16
    propose(eagle, pair, BATCH, monkeypatch)
    with pytest.raises(AssertionError, match=r"slots of draft\.c"):
        check(pair, BATCH)


def test_check_fails_on_rows_taken_as_full(
    pair: Rig, eagle: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the count of allocated blocks, drafts go to blocks that another request left in the row."""
    tables = pair.block_tables.block_tables
    full = [
        SimpleNamespace(get_device_tensor=t.get_device_tensor, num_blocks_per_row=t.num_blocks_per_row + 99)
        for t in tables
    ]
    pair.proposer.runner.input_batch.block_table = full
    propose(eagle, pair, BATCH, monkeypatch)
    with pytest.raises(AssertionError, match="slots of draft"):
        check(pair, BATCH)


def test_batch_padding_gets_no_slot(pair: Rig, eagle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes padded for a CUDA graph: the rows past the batch write nowhere, whatever the pass before left there."""
    sized = eagle.CUDAGraphMode.NONE
    monkeypatch.setattr(
        pair.proposer, "_determine_batch_execution_and_padding", lambda n: (sized, n + 3, None)
    )
    propose(eagle, pair, BATCH, monkeypatch)
    for forward in pair.forwards:
        assert all(slots[-3:].tolist() == [PAD] * 3 for slots in forward.slots.values())
        forward.slots = {layer: slots[:-3] for layer, slots in forward.slots.items()}
    check(pair, BATCH)


def test_next_batch_sees_no_leftovers(pair: Rig, eagle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    propose(eagle, pair, BATCH, monkeypatch)
    pair.forwards.clear()
    pair.blocks.clear()
    later = BATCH[1:]
    fill(pair, later)
    propose(eagle, pair, later, monkeypatch)
    check(pair, later)


def test_single_group_takes_stock_path(eagle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = [Group(16, 16, ("draft.a", "draft.b")), Group(64, 64)]
    seen = []
    for module in (stock, eagle):
        rig = make_rig(module, layouts, tokens=5, max_model_len=300)
        fill(rig, BATCH)
        propose(module, rig, BATCH, monkeypatch)
        seen.append(
            [
                (f.positions.tolist(), {k: v.tolist() for k, v in sorted(f.slots.items())})
                for f in rig.forwards
            ]
        )
        assert not getattr(rig.proposer, "draft_kv_cache_groups", {})
    assert seen[0] == seen[1]


def test_runner_counts_stay_unchanged(eagle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their copy to the GPU can still be waiting: stock adds to them, and a whole pass has positions off by one."""
    for module, left in ((eagle, [0, 40]), (stock, [4, 44])):
        rig = make_rig(module, PAIR[1:2], tokens=5, max_model_len=300)
        fill(rig, BATCH[:2])
        counts = torch.tensor([0, 40], dtype=torch.int32)
        propose(module, rig, BATCH[:2], monkeypatch, counts)
        assert counts.tolist() == left


def test_stock_refuses_pair(eagle: ModuleType) -> None:
    with pytest.raises(AssertionError, match="same kv cache group"):
        make_rig(stock, PAIR, tokens=5, max_model_len=300)
    with pytest.raises(AssertionError, match="same kv cache group"):
        make_rig(eagle, PAIR, tokens=5, max_model_len=300, method="eagle")


def gemma4_groups() -> list[Group]:
    """31B and E4B as vLLM groups them: 22 groups, of which the drafter's layers are in the last 6."""

    def layers(prefix: str, count: int, heads: tuple[int, int], window: int) -> dict[str, Any]:
        common = {"block_size": 16, "dtype": torch.bfloat16}
        sliding = functools.partial(
            kv_cache_interface.SlidingWindowSpec, num_kv_heads=heads[0], head_size=256, sliding_window=window
        )
        full = functools.partial(kv_cache_interface.FullAttentionSpec, num_kv_heads=heads[1], head_size=512)
        return {f"{prefix}.{i}": (full if i % 6 == 5 else sliding)(**common) for i in range(count)}

    scheduler = SimpleNamespace(disable_hybrid_kv_cache_manager=False)
    specs = layers("target", 60, (16, 4), 1024) | layers("draft", 24, (2, 2), 512)
    config = SimpleNamespace(
        scheduler_config=scheduler, cache_config=SimpleNamespace(num_gpu_blocks_override=None)
    )
    groups = kv_cache_utils.get_kv_cache_groups(config, specs)
    # E4B's last 18 of 42 layers read the KV of layer 22 (sliding) or 23 (full).
    shared = {f"draft.{i}": "draft.23" if i % 6 == 5 else "draft.22" for i in range(24, 42)}
    worker_utils.add_kv_sharing_layers_to_kv_cache_groups(shared, groups)
    return [
        Group(
            size := group.kv_cache_spec.block_size,
            size,
            tuple(n for n in group.layer_names if n.startswith("draft")),
        )
        for group in groups
    ]


def test_gemma4_31b_with_e4b_has_right_groups(eagle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = gemma4_groups()
    drafting = {gid: group.block_size for gid, group in enumerate(groups) if group.draft_layers}
    assert drafting == {16: 128, 17: 128, 18: 128, 19: 128, 20: 128, 21: 64}
    rig = make_rig(eagle, groups, tokens=5, max_model_len=2000)
    assert len(rig.proposer.draft_layer_gids) == 42
    assert rig.proposer.kv_cache_gid == 16
    assert rig.proposer.block_size == 128
    requests = [Request(0, 300), Request(1200, 6, rejected=3, lookahead=5), Request(640, 1), Request(1994, 6)]
    fill(rig, requests)
    propose(eagle, rig, requests, monkeypatch)
    check(rig, requests)


def test_layer_order_ignores_set_order(eagle: ModuleType) -> None:
    names = tuple(f"draft.{i}" for i in range(20))
    for order in (names, names[::-1]):
        rig = make_rig(
            eagle,
            (Group(16, 16), Group(32, 32, order[::2]), Group(64, 64, order[1::2])),
            tokens=2,
            max_model_len=99,
        )
        assert [g.kv_cache_group_id for g in rig.proposer.draft_attn_groups] == [1, 2]
        assert all(g.layer_names == sorted(g.layer_names) for g in rig.proposer.draft_attn_groups)


def test_second_start_replaces_first(pair: Rig) -> None:
    """Profiling of CUDA graphs initializes the KV cache twice (gpu_model_runner.py:5797)."""
    moved = (Group(16, 16), Group(16, 16), Group(64, 64, ("draft.a", "draft.b", "draft.c")))
    pair.proposer.initialize_attn_backend(kv_cache_config(moved), [16, 16, 64])
    assert list(pair.proposer.draft_kv_cache_groups) == [2]
    assert pair.proposer.kv_cache_gid == 2


def test_tree_attention_is_refused(eagle: ModuleType) -> None:
    builder = eagle.TreeAttentionMetadataBuilder
    with pytest.raises(NotImplementedError, match="Tree attention"):
        make_rig(eagle, PAIR, tokens=2, max_model_len=99, builder=builder)


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_context_parallelism_is_refused(eagle: ModuleType, kind: str) -> None:
    with pytest.raises(NotImplementedError, match="context parallel"):
        make_rig(eagle, PAIR, tokens=2, max_model_len=99, parallel={f"{kind}_context_parallel_size": 2})


@pytest.mark.parametrize("draft", [{"get_num_attention_heads": lambda _: 5}, {"get_head_size": lambda: 1024}])
def test_triton_refuses_drafter_with_more_heads(eagle: ModuleType, draft: dict[str, Any]) -> None:
    make_rig(eagle, PAIR, tokens=2, max_model_len=99, draft=draft)
    with pytest.raises(NotImplementedError, match="attention heads"):
        make_rig(
            eagle, PAIR, tokens=2, max_model_len=99, draft=draft, builder=eagle.TritonAttentionMetadataBuilder
        )


@pytest.mark.parametrize(
    ("model", "method", "outcome"),
    [
        ({}, "draft_model", False),
        ({"uses_mrope": True}, "draft_model", NotImplementedError),
        ({"uses_xdrope_dim": 4}, "draft_model", NotImplementedError),
        ({}, "eagle", NotImplementedError),
    ],
)
def test_multimodal_targets(
    eagle: ModuleType, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], method: str, outcome: Any
) -> None:
    """A draft model drafts from text alone; where slots cannot be told from positions, the stock refusal stands."""
    monkeypatch.setattr(
        eagle, "MULTIMODAL_REGISTRY", SimpleNamespace(supports_multimodal_inputs=lambda _: True)
    )
    start = functools.partial(
        make_rig, eagle, PAIR[:1] + PAIR[1:2], tokens=2, max_model_len=99, model=model, method=method
    )
    if outcome is NotImplementedError:
        with pytest.raises(NotImplementedError, match="multimodal"):
            start()
    else:
        assert start().proposer.supports_mm_inputs is outcome
