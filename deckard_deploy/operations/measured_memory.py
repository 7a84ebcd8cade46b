"""The plan's memory against what the engine's log said of it after a start; what the next plan learns from that."""

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
    """What the engine printed of the KV cache, and what was planned; empty when it printed nothing."""
    tokens, concurrency = facts.kv_cache_tokens, facts.max_concurrency
    if tokens is None or concurrency is None:
        return ""
    text = f"; KV cache of {tokens:,} tokens, {concurrency:.1f} full-length requests"
    planned = memory.tokens if memory else 0
    if not planned:
        return text
    return (
        f"{text}, as planned"
        if planned == tokens
        else f"{text} (planned: {planned:,}, {tokens / planned - 1:+.1%})"
    )


def memory_line(facts: Facts, memory: MemoryPlan) -> str:
    """What else the log tells, each beside the plan's figure; empty on a CPU, where it tells nothing."""
    said = start_memory(facts, memory)
    parts = {part.name: part.expected for part in memory.parts}
    counted = any(part.name == "CUDA graphs" and part.profiled for part in memory.parts)
    loaded = parts.get("weights", 0) + parts.get("drafter", 0)
    found = (
        ("weights", None if facts.model_loading_gib is None else int(facts.model_loading_gib * GIB), loaded),
        ("engine", _engine(said, graphs_counted=counted), parts.get("engine", 0)),
        ("CUDA graphs", _graphs(said), parts.get("CUDA graphs", 0)),
    )
    return ", ".join(
        f"{n} {readable_bytes(size)} (planned: {readable_bytes(plan)})"
        for n, size, plan in found
        if size is not None
    )


def start_memory(facts: Facts, memory: MemoryPlan) -> history.StartMemory:
    """What is kept of a start."""
    return history.StartMemory(
        **memory.step._asdict(),
        requested_gib=memory.requested / GIB,
        model_loading_gib=facts.model_loading_gib,
        # Where the size was given, vLLM measures nothing.
        available_kv_cache_gib=None if memory.fixed_kv_bytes else facts.available_kv_cache_gib,
        graph_capture_gib=facts.graph_capture_gib,
    )


def earlier_starts(resolved: Resolved, path: Path) -> tuple[EarlierStart, ...]:
    """What the last starts of the same profile, model and engine took, from the file of starts."""
    names = {"profile": resolved.profile.name, "model": resolved.model.name, "engine": resolved.engine.name}
    counted = subtracts_cuda_graphs(resolved)
    starts = (start.memory for start in history.starts_like(path, **names) if start.memory)
    return tuple(_earlier(said, graphs_counted=counted) for said in starts)


def _earlier(said: history.StartMemory, *, graphs_counted: bool) -> EarlierStart:
    step = BatchShape(**said.model_dump(include={"in_flight", "max_num_seqs", "tensor_parallel", "drafter"}))
    return EarlierStart(step=step, engine=_engine(said, graphs_counted=graphs_counted), graphs=_graphs(said))


def _engine(said: history.StartMemory, *, graphs_counted: bool) -> int | None:
    """What vLLM subtracted beside weights and graphs before it sized the KV cache (v1/worker/gpu_worker.py)."""
    if said.model_loading_gib is None or said.available_kv_cache_gib is None:
        return None
    taken = int((said.requested_gib - said.model_loading_gib - said.available_kv_cache_gib) * GIB)
    return max(0, taken - ((_graphs(said) or 0) if graphs_counted else 0))


def _graphs(said: history.StartMemory) -> int | None:
    """On unified memory vLLM has printed less than nothing."""
    return None if said.graph_capture_gib is None else max(0, int(said.graph_capture_gib * GIB))
