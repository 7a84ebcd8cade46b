"""The memory outside the KV cache: weights, and the engine's share, assumed or measured in earlier starts."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Hardware, LmHead, ModelSpec
from deckard_deploy.planning.memory.settings import GIB, CacheSettings

# Per parameter: 4 bits, and one byte of scale for 16 parameters (ModelOpt 0.42.0, NVFP4 group_size 16).
NVFP4_BYTES = 0.5625


class Level(StrEnum):
    """A point in the range of an assumption."""

    LOW = "low"
    EXPECTED = "expected"
    HIGH = "high"


class MemoryPart(NamedTuple):
    """A share of the memory outside the KV cache, in bytes.

    profiled: vLLM subtracts it before it sizes the KV cache. measured: the figures are from earlier starts on
    this host.
    """

    name: str
    expected: int
    low: int
    high: int
    source: str
    profiled: bool = True
    measured: bool = False

    def bytes_at(self, level: Level) -> int:
        """Return the size at that point of the range."""
        sizes = {Level.LOW: self.low, Level.EXPECTED: self.expected, Level.HIGH: self.high}
        return sizes[level]


class BatchShape(NamedTuple):
    """The settings that decide the engine's share: the largest step, the number of GPUs, and the drafter."""

    in_flight: int
    max_num_seqs: int
    tensor_parallel: int
    drafter: str | None


class EarlierStart(NamedTuple):
    """The bytes that the log of an earlier start names; None where it does not.

    A start of the same profile, model and engine on this host.
    """

    step: BatchShape
    engine: int | None
    graphs: int | None


class HostMeasurements(NamedTuple):
    """Measurements on this host: its earlier starts, and the bytes of local models.

    weight_bytes: model name -> component -> bytes.
    """

    weight_bytes: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    starts: Sequence[EarlierStart] = ()


def readable_bytes(size: int) -> str:
    """Format bytes for people: in GiB, or in MiB below 0.1 GiB."""
    if size >= GIB // 10:
        return f"{size / GIB:.1f} GiB"
    return f"{size / 2**20:.0f} MiB"


def weight_parts(
    resolved: Resolved, settings: CacheSettings, measured: Mapping[str, Mapping[str, int]]
) -> list[MemoryPart]:
    """Return the weights per GPU of target and drafter. measured: model name -> component -> bytes."""
    parts = []
    for name, model in (("weights", resolved.model), ("drafter", resolved.drafter)):
        if model and model.weights:
            parts.append(_weight_part(name, model, settings, measured))
    if resolved.lm_head:
        size = lm_head_bytes(resolved.model, resolved.lm_head) // settings.tensor_parallel
        source = f"a copy in {resolved.lm_head} of the embedding, whose table stays"
        parts.insert(1, MemoryPart(name="lm_head", expected=size, low=size, high=size, source=source))
    return parts


def _weight_part(
    name: str, model: ModelSpec, settings: CacheSettings, measured: Mapping[str, Mapping[str, int]]
) -> MemoryPart:
    components = measured.get(model.name) or model.component_bytes
    if components:
        total = sum(components.values())
        source = f"its tensors: {_component_sizes(components)}"
    else:
        total = int(model.size_gb * 1e9)
        source = "its size in the catalog"
    copied = copied_value_bytes(model)
    if copied:
        source += f"; and {readable_bytes(copied)} that vLLM copies (a full layer's keys for its values)"
    size = (total + copied) // settings.tensor_parallel
    return MemoryPart(name=name, expected=size, low=size, high=size, source=source)


def lm_head_bytes(model: ModelSpec, lm_head: LmHead | None) -> int:
    """Return the bytes of lm_head: in BF16, as in the checkpoint (None), or quantized at load."""
    shape = model.architecture
    parameters = shape.vocabulary_size * shape.hidden_size
    if lm_head is None:
        return 2 * parameters
    if lm_head == "nvfp4":
        return int(parameters * NVFP4_BYTES)
    return parameters + 4 * shape.vocabulary_size  # a scale in float32 for each row


def _component_sizes(components: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {readable_bytes(size)}" for name, size in components.items())


def copied_value_bytes(model: ModelSpec) -> int:
    """Return the bytes of k_proj that vLLM copies into the place of a full layer's missing v_proj.

    models/gemma4.py, `attention_k_eq_v`.
    """
    shape = model.architecture
    if not shape.k_eq_v:
        return 0
    full_layers = shape.layers - shape.sliding_layers
    parameters = full_layers * shape.hidden_size * shape.global_kv_heads * shape.global_head_dim
    bytes_per_parameter = NVFP4_BYTES if model.quantization.startswith("nvfp4") else 2
    return int(parameters * bytes_per_parameter)


def subtracts_cuda_graphs(resolved: Resolved) -> bool:
    """Return True if vLLM subtracts the CUDA graphs before it sizes the KV cache.

    0.19.1 does not by default (v1/worker/gpu_worker.py:395); releases since 0.21.0 do (0.32.0,
    v1/worker/gpu_worker.py:709).
    """
    default = "1" if resolved.engine.is_at_least("0.21.0") else "0"
    return resolved.environment.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", default) != "0"


def engine_parts(resolved: Resolved, hardware: Hardware, alike: Sequence[EarlierStart]) -> list[MemoryPart]:
    """Return the engine's own memory and its CUDA graphs. alike: earlier starts of the same shape."""
    if hardware.gpu_count == 0:
        return []
    measured = "measured on a Spark with vLLM 0.28 (github llamastash/llamastash issue 80)"
    if hardware.memory == "unified":
        expected, low, high = 6.05, 5.4, 6.7
        source = measured
        graphs_gib, graphs_source = 1.0, "assumed"
    else:
        # At 8,192 tokens a step, with vLLM 0.33.0 (docs/validation/2026-12-01-gpu-start.md). The start that compiles
        # leaves more in use than those after it.
        expected, low, high = 3.4, 1.7, 6.7
        source = f"{low:g} to {expected:g} GiB were measured on an H200; {high:g} GiB at most were {measured}"
        # 0.31 GiB there with a drafter; 0.05 with vLLM 0.19.1 and none
        graphs_gib, graphs_source = 0.4, "assumed; 0.3 GiB were measured on an H200"
    engine = MemoryPart(
        name="engine",
        expected=int(expected * GIB),
        low=int(low * GIB),
        high=int(high * GIB),
        source=source,
    )
    engine = _with_measured_sizes(engine, [start.engine for start in alike])
    if resolved.serve.get("enforce-eager") is True:
        return [engine]
    graphs = MemoryPart(
        name="CUDA graphs",
        expected=int(graphs_gib * GIB),
        low=0,
        high=2 * GIB,
        source=graphs_source,
        profiled=subtracts_cuda_graphs(resolved),
    )
    return [engine, _with_measured_sizes(graphs, [start.graphs for start in alike])]


def _with_measured_sizes(assumed: MemoryPart, sizes: Sequence[int | None]) -> MemoryPart:
    """Return the part with the sizes of earlier starts, or unchanged when no start names one."""
    known = [size for size in sizes if size is not None]
    if not known:
        return assumed
    plural = "s" if len(known) > 1 else ""
    return assumed._replace(
        expected=int(median(known)),
        low=min(known),
        high=max(known),
        source=f"measured on this host, in {len(known)} earlier start{plural}",
        measured=True,
    )
