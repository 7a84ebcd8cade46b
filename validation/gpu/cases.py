"""The cases that validate_eagle.py runs: which vLLM files, which checkpoints, which engine settings, which phases."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TEXT = ("1x32", "1x36", "1x400", "4x300-900", "8x20-1500", "8x20-1500 again")
SHORT = ("1x36", "1x400", "4x300-900")
IMAGE = "2 images"
ONE_GROUP = {"disable_hybrid_kv_cache_manager": True}
WITH_GRAPHS = {"enforce_eager": False}

EAGLE = "v1/spec_decode/eagle.py"
SCHEDULER = "v1/core/sched/scheduler.py"

# Files over the stock ones: (file, text, its replacement) on top of the patched eagle.py. Each is an experiment.
EXPERIMENTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "patched": (),
    # As in the published patch: every draft layer gets group 0's block table.
    "group 0 for all": (
        (EAGLE, "self.runner.input_batch.block_table[gid]", "self.runner.input_batch.block_table[0]"),
    ),
    # As in stock vLLM: the first passes of a batch draft on the runner's own pinned counts (eagle.py:593).
    "counts in place": (
        (
            EAGLE,
            """common_attn_metadata._num_computed_tokens_cpu = (
                    common_attn_metadata._num_computed_tokens_cpu + 1
                )
""",
            "common_attn_metadata._num_computed_tokens_cpu += 1\n",
        ),
    ),
    # The scheduler reserves no slots for drafts in a request's first step (scheduler.py:716).
    "first lookahead": (
        (
            SCHEDULER,
            "0 if request.num_computed_tokens == 0 else self.num_lookahead_tokens",
            "self.num_lookahead_tokens",
        ),
    ),
}


@dataclass(frozen=True)
class EngineCase:
    target: str
    drafter: str | None = None
    files: str = "stock"
    phases: tuple[str, ...] = TEXT
    tokens: int = 5
    engine: Mapping[str, object] = field(default_factory=dict)
    base: str | None = None  # the case whose text this one must repeat
    timeout_s: int = 225

    @property
    def gpus(self) -> int:
        return int(str(self.engine.get("tensor_parallel_size", 1)))


def patched(target: str, drafter: str, **changes: object) -> EngineCase:
    settings: dict[str, object] = {"files": "patched", "base": f"{target}, no drafter", **changes}
    return EngineCase(target, drafter, **settings)  # type: ignore[arg-type]


SMALL = {"max_model_len": 512, "max_num_batched_tokens": 512, "num_gpu_blocks_override": 280}
EDGE = {"max_model_len": 512}
EDGE_PHASES = ("1x450", "3x380-505")
MANY = {"max_num_seqs": 16}
MANY_PHASES = ("16x20-1500",)
# Prompts from a part of the window to 32 windows.
WIDE = {"max_num_seqs": 16, "max_model_len": 4608, "kv_cache_memory_bytes": 3 << 30}
WIDE_PHASES = ("1x4080", "4x16-4080", "16x16-4080", "16x16-4080 again")
WIDE_BASE = "text, no drafter, to 4080"
# Both ranks by NCCL alone.
TWO_GPUS = {"tensor_parallel_size": 2, "disable_custom_all_reduce": True}
TWO_GPUS_BASE, TWO_GPUS_IMAGES_BASE = "2 GPUs: text, no drafter", "2 GPUs: mm_e4b, no drafter"


def wide(**changes: object) -> EngineCase:
    engine = {**WIDE, **changes.pop("engine", {})}  # type: ignore[dict-item]
    return patched("text", "text_kv4", phases=WIDE_PHASES, base=WIDE_BASE, engine=engine, **changes)


# The slowest first: they run in parallel.
CASES: dict[str, EngineCase] = {
    "other KV spec, CUDA graphs": patched("text", "text_kv4", engine=WITH_GRAPHS),
    "E4B-like, other KV spec, CUDA graphs, images": patched(
        "mm_e4b", "mm_e4b_kv4", engine=WITH_GRAPHS, phases=(*SHORT, IMAGE)
    ),
    "drafter of another function": patched("text", "text_stranger", phases=SHORT),
    "E4B-like drafter of another function, images": patched("mm", "mm_e4b", phases=("1x36", "1x400", IMAGE)),
    "control: group 0 for all": patched("text", "text_kv4", files="group 0 for all", phases=SHORT),
    "text, no drafter": EngineCase("text", phases=(*TEXT, "8x64")),
    "mm, no drafter": EngineCase("mm", phases=("1x36", "1x400", IMAGE)),
    "mm_e4b, no drafter": EngineCase("mm_e4b", phases=(*TEXT, IMAGE)),
    "text, no drafter, maximum length": EngineCase("text", phases=EDGE_PHASES, engine=EDGE),
    "same KV spec": patched("text", "text"),
    "other KV spec": patched("text", "text_kv4"),
    "other KV spec, k=1": patched("text", "text_kv4", tokens=1),
    "other KV spec, k=3": patched("text", "text_kv4", tokens=3),
    "other KV spec, k=8": patched("text", "text_kv4", tokens=8),
    "text, no drafter, 16 requests": EngineCase("text", phases=MANY_PHASES, engine=MANY),
    "other KV spec, 16 requests": patched(
        "text", "text_kv4", engine=MANY, phases=MANY_PHASES, base="text, no drafter, 16 requests"
    ),
    "other KV spec, 256 batched tokens": patched("text", "text_kv4", engine={"max_num_batched_tokens": 256}),
    "other KV spec, async scheduling": patched("text", "text_kv4", engine={"async_scheduling": True}),
    "other KV spec, 280 blocks": patched("text", "text_kv4", engine=SMALL, phases=("8x64",)),
    "other KV spec, maximum length": patched(
        "text", "text_kv4", engine=EDGE, phases=EDGE_PHASES, base="text, no drafter, maximum length"
    ),
    "E4B-like, same KV spec, images": patched("mm_e4b", "mm_e4b", phases=(*TEXT, IMAGE)),
    "E4B-like, other KV spec, images": patched("mm_e4b", "mm_e4b_kv4", phases=(*TEXT, IMAGE)),
    "E4B-like, other KV spec, 512 batched tokens, images": patched(
        "mm_e4b", "mm_e4b_kv4", engine={"max_num_batched_tokens": 512}, phases=(*SHORT, IMAGE)
    ),
    "experiment: other KV spec, first step with lookahead": patched(
        "text", "text_kv4", files="first lookahead", phases=("1x32",)
    ),
    "one group, patched": patched("text", "text_kv4", engine=ONE_GROUP),
    "control: one group, stock": patched("text", "text_kv4", engine=ONE_GROUP, files="stock"),
    "control: one group, stock, maximum length": patched(
        "text",
        "text_kv4",
        engine={**ONE_GROUP, **EDGE},
        files="stock",
        phases=EDGE_PHASES,
        base="text, no drafter, maximum length",
    ),
    WIDE_BASE: EngineCase("text", phases=WIDE_PHASES, engine=WIDE),
    "to 4080, k=1": wide(tokens=1),
    "to 4080, k=3": wide(tokens=3),
    "to 4080, k=5": wide(),
    "to 4080, k=8": wide(tokens=8),
    "to 4080, k=8, CUDA graphs": wide(tokens=8, engine=WITH_GRAPHS),
    "to 4080, k=5, 512 batched tokens": wide(engine={"max_num_batched_tokens": 512}),
    "to 4080, k=5, no prefix cache": wide(engine={"enable_prefix_caching": False}),
    "control: to 4080, counts in place": wide(files="counts in place"),
    "to 4080, k=5, one group": wide(engine=ONE_GROUP),
    "control: to 4080, one group, stock": wide(engine=ONE_GROUP, files="stock"),
    TWO_GPUS_BASE: EngineCase("text", phases=TEXT, engine=TWO_GPUS),
    TWO_GPUS_IMAGES_BASE: EngineCase("mm_e4b", phases=(*SHORT, IMAGE), engine=TWO_GPUS),
    "2 GPUs: other KV spec": patched("text", "text_kv4", engine=TWO_GPUS, base=TWO_GPUS_BASE),
    "2 GPUs: other KV spec, k=1": patched("text", "text_kv4", engine=TWO_GPUS, base=TWO_GPUS_BASE, tokens=1),
    "2 GPUs: other KV spec, CUDA graphs": patched(
        "text", "text_kv4", engine={**TWO_GPUS, **WITH_GRAPHS}, base=TWO_GPUS_BASE, phases=SHORT
    ),
    "2 GPUs: E4B-like, other KV spec, images": patched(
        "mm_e4b", "mm_e4b_kv4", engine=TWO_GPUS, base=TWO_GPUS_IMAGES_BASE, phases=(*SHORT, IMAGE)
    ),
    "2 GPUs: control: group 0 for all": patched(
        "text", "text_kv4", engine=TWO_GPUS, base=TWO_GPUS_BASE, files="group 0 for all", phases=SHORT
    ),
    "control: stock": patched("text", "text_kv4", files="stock"),
    "control: stock, multimodal": patched("mm_e4b", "mm_e4b", files="stock"),
}
