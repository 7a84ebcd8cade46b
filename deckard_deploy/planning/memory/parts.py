"""What takes memory beside the KV cache: weights, and the engine's share, assumed or as earlier starts had it."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Hardware, ModelSpec
from deckard_deploy.planning.memory.settings import GIB, CacheSettings

# Per parameter: 4 bits, and a byte of scale for 16 (ModelOpt 0.42.0, NVFP4 group_size 16)
NVFP4_BYTES = 0.5625


class Level(StrEnum):
    """Which end of the assumptions is meant."""

    LOW = "low"
    EXPECTED = "expected"
    HIGH = "high"


class Part(NamedTuple):
    """Memory taken by something other than the KV cache.

    profiled: vLLM subtracts it before it sizes the KV cache. measured: the figures are of earlier starts on this host.
    """

    name: str
    expected: int
    low: int
    high: int
    source: str
    profiled: bool = True
    measured: bool = False

    def bytes_at(self, level: Level) -> int:
        """The size at that end of the range."""
        return {Level.LOW: self.low, Level.EXPECTED: self.expected, Level.HIGH: self.high}[level]


class Step(NamedTuple):
    """What decides about the engine's share: the most that one step computes, on how many GPUs, with which drafter."""

    in_flight: int
    max_num_seqs: int
    tensor_parallel: int
    drafter: str | None


class EarlierStart(NamedTuple):
    """What a start of the same profile, model and engine took on this host, by its log; None where that did not say."""

    step: Step
    engine: int | None
    graphs: int | None


class Known(NamedTuple):
    """What this host has shown: what the components of models take that are here, by name, and its earlier starts."""

    weight_bytes: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    starts: Sequence[EarlierStart] = ()


def readable(size: int) -> str:
    """A size for people: GiB, or MiB of what is small."""
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{size / 2**20:.0f} MiB"


def weight_parts(
    resolved: Resolved, settings: CacheSettings, measured: Mapping[str, Mapping[str, int]]
) -> list[Part]:
    parts = []
    for model in (resolved.model, resolved.drafter):
        if model and model.weights:
            known, copied = measured.get(model.name), _copied_values(model)
            size = (
                (sum(known.values()) if known else int(model.size_gb * 1e9)) + copied
            ) // settings.tensor_parallel
            source = f"its tensors: {_listed(known)}" if known else "its size in the catalog"
            if copied:
                source += f"; and {readable(copied)} that vLLM copies (a full layer's keys for its values)"
            name = "weights" if model is resolved.model else "drafter"
            parts.append(Part(name=name, expected=size, low=size, high=size, source=source))
    return parts


def _listed(components: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {readable(size)}" for name, size in components.items())


def _copied_values(model: ModelSpec) -> int:
    """vLLM copies k_proj into the place of a full layer's missing v_proj (models/gemma4.py, `attention_k_eq_v`)."""
    shape = model.architecture
    if not shape.k_eq_v:
        return 0
    parameters = (
        (shape.layers - shape.sliding_layers)
        * shape.hidden_size
        * shape.global_kv_heads
        * shape.global_head_dim
    )
    return int(parameters * (2 if model.quantization == "none" else NVFP4_BYTES))


def counts_graphs(resolved: Resolved) -> bool:
    """Whether vLLM takes the CUDA graphs off before it sizes the KV cache.

    Not 0.19.1 by itself (v1/worker/gpu_worker.py:395); by default since 0.21.0 (0.32.0, v1/worker/gpu_worker.py:709).
    """
    default = "0" if resolved.engine.vllm_version == "0.19.1" else "1"
    return resolved.environment.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", default) != "0"


def engine_parts(resolved: Resolved, hardware: Hardware, alike: Sequence[EarlierStart]) -> list[Part]:
    if hardware.gpu_count == 0:
        return []
    unified = hardware.memory == "unified"
    expected, low, high = (6.05, 5.4, 6.7) if unified else (5.0, 2.0, 6.7)
    measured = "measured on a Spark with vLLM 0.28 (github llamastash/llamastash issue 80)"
    engine = Part(
        name="engine",
        expected=int(expected * GIB),
        low=int(low * GIB),
        high=int(high * GIB),
        source=measured if unified else f"assumed; {high:g} GiB at most were {measured}",
    )
    engine = _as_measured(engine, [start.engine for start in alike])
    if resolved.serve.get("enforce-eager") is True:
        return [engine]
    profiled = counts_graphs(resolved)
    graphs = Part(name="CUDA graphs", expected=GIB, low=0, high=2 * GIB, source="assumed", profiled=profiled)
    return [engine, _as_measured(graphs, [start.graphs for start in alike])]


def _as_measured(assumed: Part, sizes: Sequence[int | None]) -> Part:
    """The part as earlier starts had it, where they say."""
    seen = [size for size in sizes if size is not None]
    if not seen:
        return assumed
    return assumed._replace(
        expected=int(median(seen)),
        low=min(seen),
        high=max(seen),
        source=f"measured on this host, in {len(seen)} earlier start" + ("s" if len(seen) > 1 else ""),
        measured=True,
    )
