"""A drafter of the patched eagle.py on a CPU: vLLM's own objects all around, its GPU kernels and its model replaced.

Whoever imports this where vLLM is missing is skipped.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
CUDAGraphMode = pytest.importorskip(
    "vllm.config", reason="vLLM is not installed beside this Python"
).CUDAGraphMode
attention_backend = pytest.importorskip("vllm.v1.attention.backend")
attention_layer = pytest.importorskip("vllm.model_executor.layers.attention_layer_base")
block_table = pytest.importorskip("vllm.v1.worker.block_table")
kv_cache_interface = pytest.importorskip("vllm.v1.kv_cache_interface")

PAD = -1
MAX_REQUESTS, MAX_TOKENS = 8, 512


@dataclass(frozen=True)
class Group:
    """A KV cache group: the block size of the KV cache manager, of the kernel, and the draft layers in it."""

    block_size: int
    kernel_block_size: int
    draft_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One row of a batch: tokens computed before, tokens of this step, how many of those were rejected."""

    computed: int
    query: int
    rejected: int = 0
    lookahead: int = 0  # tokens that blocks were allocated for past the query


@dataclass
class Forward:
    """The arguments of one forward pass of the draft model."""

    positions: Any
    slots: dict[str, Any]
    metadata: dict[str, Any]


@dataclass
class Rig:
    proposer: Any
    groups: Sequence[Group]
    block_tables: Any
    blocks: list[list[list[int]]] = field(default_factory=list)  # [request][group] -> block ids
    forwards: list[Forward] = field(default_factory=list)


def expand_inputs(**args: Any) -> None:
    """copy_and_expand_eagle_inputs_kernel for a draft model (v1/spec_decode/utils.py:312), in words."""
    starts = args["query_start_loc_ptr"].tolist()
    for row, (start, end) in enumerate(itertools.pairwise(starts)):
        accepted = int(args["query_end_loc_ptr"][row]) - start + 1
        first = start + row  # each earlier request has one token more than it came with
        position = int(args["target_positions_ptr"][start])
        for offset in range(end - start + 1):
            at, is_rejected = first + offset, offset > accepted
            token = (
                args["next_token_ids_ptr"][row] if offset == accepted else args["target_token_ids_ptr"][start]
            )
            args["out_input_ids_ptr"][at] = 0 if is_rejected else token
            args["out_positions_ptr"][at] = 0 if is_rejected else position + offset
            args["out_is_rejected_token_mask_ptr"][at] = is_rejected
            args["out_is_masked_token_mask_ptr"][at] = False
        args["out_new_token_indices_ptr"][row] = first + accepted


def advance(**args: Any) -> None:
    """eagle_step_update_slot_mapping_and_metadata (v1/spec_decode/utils.py:74), in words."""
    table, size, limit = args["block_table_tensor"], args["block_size"], args["max_model_len"]
    args["out_slot_mapping"].fill_(PAD)
    for row, position in enumerate((args["positions_1d"] + 1).tolist()):
        over = position >= limit
        at = 0 if over else position
        block = int(table[row, min(at // size, table.shape[1] - 1)])
        args["out_clamped_positions"][row] = at
        args["out_slot_mapping"][row] = PAD if over else block * size + at % size
        args["seq_lens"][row] = 1 if over else min(int(args["seq_lens"][row]) + 1, limit)


def vllm_config(*, tokens: int, max_model_len: int, layers: dict[str, Any], **overrides: Any) -> Any:
    heads = {"get_num_attention_heads": lambda _: 4, "get_head_size": lambda: 512}
    draft = SimpleNamespace(
        get_hidden_size=lambda: 1,
        get_inputs_embeds_size=lambda: 1,
        uses_mrope=False,
        uses_xdrope_dim=0,
        **heads,
    )
    speculative = SimpleNamespace(
        draft_model_config=SimpleNamespace(**{**vars(draft), **overrides.pop("draft", {})}),
        method=overrides.pop("method", "draft_model"),
        num_speculative_tokens=tokens,
        parallel_drafting=False,
        use_local_argmax_reduction=False,
        disable_padded_drafter_batch=False,
        enforce_eager=False,
        speculative_token_tree=str([(0,) * (depth + 1) for depth in range(tokens)]),
    )
    model = {
        "dtype": torch.float32,
        "max_model_len": max_model_len,
        "uses_mrope": False,
        "uses_xdrope_dim": 0,
    }
    parallel = {"data_parallel_rank": 0, "data_parallel_size": 1}
    parallel |= {"decode_context_parallel_size": 1, "prefill_context_parallel_size": 1}
    return SimpleNamespace(
        speculative_config=speculative,
        model_config=SimpleNamespace(
            **{**model, "is_multimodal_model": False, **heads, **overrides.pop("model", {})}
        ),
        parallel_config=SimpleNamespace(**{**parallel, **overrides.pop("parallel", {})}),
        scheduler_config=SimpleNamespace(max_num_seqs=MAX_REQUESTS, max_num_batched_tokens=MAX_TOKENS),
        compilation_config=SimpleNamespace(
            cudagraph_mode=CUDAGraphMode.NONE, static_forward_context=layers, max_cudagraph_capture_size=0
        ),
        lora_config=None,
    )


def backend(builder_class: type | None = None) -> Any:
    """An attention backend whose metadata is the common metadata that it was built from."""

    class Builder(*((builder_class,) if builder_class else ())):  # type: ignore[misc]
        def __init__(self, spec: Any, *_: Any) -> None:
            self.kv_cache_spec = spec

        def build_for_drafting(self, common_attn_metadata: Any, draft_index: int) -> Any:  # noqa: ARG002
            return common_attn_metadata

    return SimpleNamespace(get_builder_cls=lambda: Builder, full_cls_name=lambda: ("tests", "Backend"))


def kv_cache_config(groups: Sequence[Group]) -> Any:
    def spec(group: Group) -> Any:
        return kv_cache_interface.FullAttentionSpec(
            block_size=group.block_size, num_kv_heads=1, head_size=32, dtype=torch.float32
        )

    specs = [
        kv_cache_interface.KVCacheGroupSpec([f"target.{gid}", *group.draft_layers], spec(group))
        for gid, group in enumerate(groups)
    ]
    return kv_cache_interface.KVCacheConfig(num_blocks=1, kv_cache_tensors=[], kv_cache_groups=specs)


def make_rig(
    eagle: ModuleType, groups: Sequence[Group], *, tokens: int, max_model_len: int, **overrides: Any
) -> Rig:
    attention = backend(overrides.pop("builder", None))
    members = {"get_attn_backend": lambda _: attention, "get_kv_cache_spec": lambda *_: None}
    layer = type("Layer", (attention_layer.AttentionLayerBase,), members)
    names = [name for group in groups for name in group.draft_layers]
    config = vllm_config(
        tokens=tokens, max_model_len=max_model_len, layers={name: layer() for name in names}, **overrides
    )
    block_tables = block_table.MultiGroupBlockTable(
        max_num_reqs=MAX_REQUESTS,
        max_model_len=max_model_len,
        max_num_batched_tokens=MAX_TOKENS,
        pin_memory=False,
        device=torch.device("cpu"),
        block_sizes=[group.block_size for group in groups],
        kernel_block_sizes=[group.kernel_block_size for group in groups],
        max_num_blocks=[-(-max_model_len // group.block_size) for group in groups],
    )
    runner = SimpleNamespace(input_batch=SimpleNamespace(block_table=block_tables))
    proposer = eagle.SpecDecodeBaseProposer(config, torch.device("cpu"), False, runner)  # noqa: FBT003
    proposer._draft_attn_layer_names = set(names)
    proposer.initialize_attn_backend(kv_cache_config(groups), [group.kernel_block_size for group in groups])
    return Rig(proposer, groups, block_tables)


def fill(rig: Rig, requests: Sequence[Request]) -> None:
    """Give each request blocks of its own in each group, over rows that other requests have left longer."""
    ids = itertools.count(1)
    for row, request in enumerate(requests):
        end = request.computed + request.query + request.lookahead
        stale = [[next(ids) for _ in range(2)] for _ in rig.groups]
        blocks = [[next(ids) for _ in range(-(-end // group.block_size))] for group in rig.groups]
        widths = [
            table.max_num_blocks_per_req // table.blocks_per_kv_block
            for table in rig.block_tables.block_tables
        ]
        blocks = [own[:width] for own, width in zip(blocks, widths, strict=True)]
        rig.block_tables.add_row(
            [(own + old)[:width] for own, old, width in zip(blocks, stale, widths, strict=True)], row
        )
        rig.block_tables.add_row(blocks, row)
        rig.blocks.append(blocks)
    rig.block_tables.commit_block_table(len(requests))


@contextlib.contextmanager
def recorded(eagle: ModuleType, rig: Rig, monkeypatch: Any) -> Iterator[None]:
    """Run the model and the kernels of vLLM that need a GPU as stand-ins; keep what each forward pass was given."""

    class Expand:
        def __getitem__(self, grid: object) -> Any:
            return expand_inputs

    class Model:
        def __call__(self, *, positions: Any, **_: Any) -> Any:
            rig.forwards[-1].positions = positions.clone()
            return torch.zeros(len(positions), 1)

        def compute_logits(self, hidden: Any) -> Any:
            return torch.zeros(len(hidden), 7)

    @contextlib.contextmanager
    def forward_context(
        metadata: dict[str, Any], *_: Any, slot_mapping: dict[str, Any], **__: Any
    ) -> Iterator[None]:
        slots = {name: slots.clone() for name, slots in slot_mapping.items()}
        copies = {
            name: each.replace(slot_mapping=each.slot_mapping.clone()) for name, each in metadata.items()
        }
        rig.forwards.append(Forward(None, slots, copies))
        yield

    rig.proposer.model = Model()
    with monkeypatch.context() as patch:
        patch.setattr(eagle, "copy_and_expand_eagle_inputs_kernel", Expand())
        patch.setattr(eagle, "eagle_step_update_slot_mapping_and_metadata", advance)
        patch.setattr(eagle, "set_forward_context", forward_context)
        patch.setattr(eagle, "triton", SimpleNamespace(next_power_of_2=lambda number: number))
        yield


def propose(
    eagle: ModuleType, rig: Rig, requests: Sequence[Request], monkeypatch: Any, counts: Any = None
) -> Any:
    """`counts`: the runner's own tensor of computed tokens, for a pass in which nothing was drafted before."""
    starts = [0, *itertools.accumulate(request.query for request in requests)]
    start_loc = torch.tensor(starts, dtype=torch.int32)
    lengths = torch.tensor([request.computed + request.query for request in requests], dtype=torch.int32)
    metadata = attention_backend.CommonAttentionMetadata(
        query_start_loc=start_loc,
        query_start_loc_cpu=start_loc.clone(),
        seq_lens=lengths,
        _num_computed_tokens_cpu=counts,
        num_reqs=len(requests),
        num_actual_tokens=starts[-1],
        max_query_len=max(request.query for request in requests),
        max_seq_len=int(lengths.max()),
        # As the runner does: group 0's.
        block_table_tensor=rig.block_tables[0].get_device_tensor(len(requests)),
        slot_mapping=torch.full((starts[-1],), 10**6),
    )
    positions = [torch.arange(each.computed, each.computed + each.query) for each in requests]
    rejected = torch.tensor([each.rejected for each in requests], dtype=torch.int32)
    with recorded(eagle, rig, monkeypatch):
        return rig.proposer.propose(
            target_token_ids=torch.ones(starts[-1], dtype=torch.int32),
            target_positions=torch.cat(positions),
            target_hidden_states=torch.zeros(starts[-1], 1),
            next_token_ids=torch.ones(len(requests), dtype=torch.int32),
            token_indices_to_sample=None,
            common_attn_metadata=metadata,
            sampling_metadata=None,
            num_rejected_tokens_gpu=rejected if counts is None else None,
        )


def slot_of(rig: Rig, row: int, gid: int, position: int) -> int:
    """The place of a token in the terms of the KV cache manager: block ids and block sizes, no kernel blocks."""
    blocks, size = rig.blocks[row][gid], rig.groups[gid].block_size
    if position >= rig.proposer.max_model_len or position // size >= len(blocks):
        return PAD
    return blocks[position // size] * size + position % size


def expected_slots(rig: Rig, requests: Sequence[Request], gid: int) -> list[list[int]]:
    """Of each forward pass: the first with the step's tokens and the sampled one, then one token for each request."""
    first: list[int] = []
    for row, request in enumerate(requests):
        kept = request.query - request.rejected + 1
        first += [slot_of(rig, row, gid, request.computed + offset) for offset in range(kept)]
        first += [PAD] * request.rejected
    steps = [
        [
            slot_of(rig, row, gid, each.computed + each.query - each.rejected + step)
            for row, each in enumerate(requests)
        ]
        for step in range(1, rig.proposer.num_speculative_tokens)
    ]
    return [first, *steps]


def check(rig: Rig, requests: Sequence[Request]) -> None:
    assert len(rig.forwards) == rig.proposer.num_speculative_tokens
    for gid, group in enumerate(rig.groups):
        passes = zip(rig.forwards, expected_slots(rig, requests, gid), strict=True)
        for step, (forward, slots) in enumerate(passes):
            for layer in group.draft_layers:
                assert forward.slots[layer].tolist() == slots, f"slots of {layer} in pass {step}"
                check_metadata(rig, forward, layer, gid)


def check_metadata(rig: Rig, forward: Forward, layer: str, gid: int) -> None:
    metadata = forward.metadata[layer]
    assert metadata.slot_mapping.tolist() == forward.slots[layer].tolist()
    table, size = metadata.block_table_tensor.tolist(), rig.groups[gid].kernel_block_size
    assert len(table) == metadata.num_reqs
    # The kernel reads position p at table[p // size] * size + p % size.
    for row, blocks in enumerate(rig.blocks):
        for position in range(len(blocks[gid]) * rig.groups[gid].block_size):
            read = table[row][position // size] * size + position % size
            assert read == slot_of(rig, row, gid, position) or position >= rig.proposer.max_model_len
