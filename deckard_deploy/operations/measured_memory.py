"""The memory that a started engine logs: next to the figures of the plan, and for the plans to come."""

from pathlib import Path

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.planning.memory.fit import MemoryPlan
from deckard_deploy.planning.memory.parts import (
    BatchShape,
    EarlierStart,
    readable_bytes,
    subtracts_cuda_graphs,
)
from deckard_deploy.planning.memory.settings import GIB
from deckard_deploy.startup import history
from deckard_deploy.startup.phases import Facts


def kv_cache_line(facts: Facts, memory: MemoryPlan | None) -> str:
    """Return the logged size of the KV cache next to the planned one; empty when it was not logged."""
    tokens, concurrency = facts.kv_cache_tokens, facts.max_concurrency
    if tokens is None or concurrency is None:
        return ""
    text = f"; KV cache of {tokens:,} tokens, {concurrency:.1f} full-length requests"
    planned = memory.tokens if memory else 0
    if not planned:
        return text
    if planned == tokens:
        return f"{text}, as planned"
    return f"{text} (planned: {planned:,}, {tokens / planned - 1:+.1%})"


def memory_line(facts: Facts, memory: MemoryPlan) -> str:
    """Return the other logged sizes next to the planned ones; empty on a CPU, where none are logged."""
    start = start_memory(facts, memory)
    planned = {part.name: part.expected for part in memory.parts}
    graphs_counted = any(part.name == "CUDA graphs" and part.profiled for part in memory.parts)
    sizes = {
        "weights": _loaded_bytes(start),
        "engine": _engine_bytes(start, graphs_counted=graphs_counted),
        "CUDA graphs": _graph_bytes(start),
    }
    # vLLM logs one size for the weights of model and drafter.
    planned["weights"] = planned.get("weights", 0) + planned.get("drafter", 0)
    texts = []
    for name, size in sizes.items():
        if size is not None:
            texts.append(f"{name} {readable_bytes(size)} (planned: {readable_bytes(planned.get(name, 0))})")
    return ", ".join(texts)


def start_memory(facts: Facts, memory: MemoryPlan) -> history.StartMemory:
    """Return the memory that the record of a start keeps."""
    return history.StartMemory(
        **memory.step._asdict(),
        requested_gib=memory.requested / GIB,
        model_loading_gib=facts.model_loading_gib,
        # vLLM measures nothing when the size of the KV cache was an option.
        available_kv_cache_gib=None if memory.fixed_kv_bytes else facts.available_kv_cache_gib,
        graph_capture_gib=facts.graph_capture_gib,
    )


def earlier_starts(resolved: Resolved, path: Path) -> tuple[EarlierStart, ...]:
    """Return the memory of the last starts of the same profile, model and engine.

    path: the file of starts.
    """
    records = history.starts_like(
        path, profile=resolved.profile.name, model=resolved.model.name, engine=resolved.engine.name
    )
    graphs_counted = subtracts_cuda_graphs(resolved)
    starts = []
    for record in records:
        if record.memory:
            starts.append(_earlier_start(record.memory, graphs_counted=graphs_counted))
    return tuple(starts)


def _earlier_start(start: history.StartMemory, *, graphs_counted: bool) -> EarlierStart:
    step = BatchShape(
        in_flight=start.in_flight,
        max_num_seqs=start.max_num_seqs,
        tensor_parallel=start.tensor_parallel,
        drafter=start.drafter,
    )
    engine = _engine_bytes(start, graphs_counted=graphs_counted)
    return EarlierStart(step=step, engine=engine, graphs=_graph_bytes(start))


def _loaded_bytes(start: history.StartMemory) -> int | None:
    if start.model_loading_gib is None:
        return None
    return int(start.model_loading_gib * GIB)


def _engine_bytes(start: history.StartMemory, *, graphs_counted: bool) -> int | None:
    """Return the bytes that vLLM subtracted before it sized the KV cache, without weights and CUDA graphs.

    graphs_counted: the release subtracts CUDA graphs too (v1/worker/gpu_worker.py).
    """
    if start.model_loading_gib is None or start.available_kv_cache_gib is None:
        return None
    size = int((start.requested_gib - start.model_loading_gib - start.available_kv_cache_gib) * GIB)
    if graphs_counted:
        size -= _graph_bytes(start) or 0
    return max(0, size)


def _graph_bytes(start: history.StartMemory) -> int | None:
    """Return the bytes of the CUDA graphs. On unified memory vLLM has logged a negative size."""
    if start.graph_capture_gib is None:
        return None
    return max(0, int(start.graph_capture_gib * GIB))
