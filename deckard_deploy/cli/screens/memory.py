"""The memory of a plan, as lines of text and as JSON."""

from collections import Counter
from typing import Any

from deckard_deploy.cli.screens.layout import wrapped
from deckard_deploy.planning.memory.changes import MemoryChange
from deckard_deploy.planning.memory.fit import (
    CONTEXT,
    RESERVE,
    TYPICAL_LENGTH,
    MemoryPlan,
)
from deckard_deploy.planning.memory.parts import Level, MemoryPart, readable_bytes
from deckard_deploy.system.unknown import Unknown

ROUNDED = 100  # sequences, from which vLLM's own number has no decimals here
BAR = 62  # characters, so that a line has fewer than 80
_SIGNS = {"weights": "#", "lm_head": "h", "drafter": "+", "engine": "=", "CUDA graphs": "~"}
_KV_SIGN, _FREE_SIGN = "k", "."
_ELEMENT_TYPES = {1: "fp8", 2: "BF16", 4: "float32"}  # by bytes
_VERDICTS = {"no": "NO", "doubtful": "DOUBTFUL"}


def memory_json(memory: MemoryPlan | Unknown, changes: tuple[MemoryChange, ...]) -> dict[str, Any]:
    """Return the memory for `plan --json`; sizes in bytes, lengths in tokens."""
    if isinstance(memory, Unknown):
        return {"unknown": memory.reason}
    return {
        "verdict": memory.verdict,
        "problem": memory.problem() or None,
        "changes": [list(change.options) for change in changes],
        "total": memory.total,
        "available": memory.available,
        "requested": memory.requested if memory.total else None,
        "parts": [_part_json(part) for part in memory.parts],
        "kv_cache": _kv_cache_json(memory),
        "sequence": {
            "tokens": memory.settings.max_model_len,
            "bytes": memory.bytes_per_sequence,
            "in_flight": memory.settings.in_flight,
        },
        "sequences": {str(length): memory.sequences(length) for length in lengths(memory)},
    }


def _part_json(part: MemoryPart) -> dict[str, Any]:
    return {
        "name": part.name,
        "expected": part.expected,
        "low": part.low,
        "high": part.high,
        "measured": part.measured,
        "source": part.source,
    }


def _kv_cache_json(memory: MemoryPlan) -> dict[str, Any]:
    return {
        "bytes": memory.kv_bytes(),
        "exact": memory.fixed_kv_bytes is not None,
        "groups": [[len(group.layers), group.block_size] for group in memory.cache.groups],
        "block_bytes": memory.cache.block_bytes,
        "blocks": memory.blocks,
        "tokens": memory.tokens,
        "max_concurrency": round(memory.concurrency, 2),
    }


def lengths(memory: MemoryPlan) -> tuple[int, ...]:
    """Return the full length, and a typical one if that is shorter."""
    full = memory.settings.max_model_len
    if full > TYPICAL_LENGTH:
        return (full, TYPICAL_LENGTH)
    return (full,)


def memory_lines(
    memory: MemoryPlan | Unknown, changes: tuple[MemoryChange, ...], *, limit: int | None
) -> list[str]:
    """Return the memory as lines of at most 80 columns.

    limit: the model's longest context, in tokens; None if it is not known.
    """
    if isinstance(memory, Unknown):
        return [f"memory       not known: {memory}"]
    lines = [f"memory       {_bounds(memory)}"]
    if memory.total:
        lines.append(f"             |{_bar(memory)}|")
    for part in memory.parts:
        lines.append(_entry(_SIGNS[part.name], part.name, readable_bytes(part.expected) + _range(part)))
    lines.append(_entry(_KV_SIGN, "KV cache", _kv_cache(memory)))
    settings = memory.settings
    sequence = readable_bytes(memory.bytes_per_sequence)
    kind = _ELEMENT_TYPES[settings.element_bytes]
    lines.append(f"sequence     {sequence} for {settings.max_model_len:,} tokens in {kind}")
    if memory.verdict == "fits":
        return lines + _fitting(memory, limit)
    return lines + _unfitting(memory, changes)


def _range(part: MemoryPart) -> str:
    """Return the range of a part's size and its origin; empty for a size that is exact."""
    if part.low == part.high:
        return " (measured here)" if part.measured else ""
    origin = "measured here" if part.measured else "assumed"
    return f" ({readable_bytes(part.low)} to {readable_bytes(part.high)}, {origin})"


def _kv_cache(memory: MemoryPlan) -> str:
    origin = "fixed" if memory.fixed_kv_bytes else "the rest"
    size = readable_bytes(max(0, memory.kv_bytes()))
    return f"{size} ({origin}): {memory.tokens:,} tokens as vLLM counts"


def explained(memory: MemoryPlan | Unknown) -> list[str]:
    """Return the calculation of the KV cache with its numbers, and the source of every other figure."""
    if isinstance(memory, Unknown):
        return []
    lines = _explained_groups(memory) + _explained_sequence(memory)
    for part in memory.parts:
        lines += wrapped(f"{part.name:13}{part.source}")
    return lines


def _explained_groups(memory: MemoryPlan) -> list[str]:
    cache = memory.cache
    kinds = Counter((group.layers[0].slides, group.block_size, len(group.layers)) for group in cache.groups)
    lines = [f"KV cache     a block is {cache.block_bytes:,} bytes over all layers; groups:"]
    for (slides, size, layers), count in kinds.items():
        kind = "sliding" if slides else "full"
        lines.append(f"             {count} of {layers} {kind} layers, {size} tokens a block")
    return lines


def _explained_sequence(memory: MemoryPlan) -> list[str]:
    cache, settings = memory.cache, memory.settings
    blocks = cache.sequence_blocks(settings.max_model_len, settings.tokens_in_flight)
    size = blocks * cache.block_bytes
    if settings.steps == 1:
        steps, shared = "a step", "one"
    else:
        steps, shared = "two steps", "two"
    lines = [
        "             full: ceil(length / block); sliding: ceil(min(window - 1 + in",
        f"             flight, length) / block) + 1; in flight {settings.tokens_in_flight:,} tokens: {steps}",
        f"             a sequence: {blocks:,} blocks * {cache.block_bytes:,} = {size:,} bytes",
    ]
    if memory.null_block_bytes:
        held, whole = memory.null_block_bytes, memory.bytes_per_sequence
        lines.append(f"             and {held:,} for the null block = {whole:,} bytes")
    sequences = f"{memory.concurrency:.2f} sequences, as vLLM counts:"
    lines.append(f"             {memory.blocks:,} blocks / {blocks:,} = {sequences}")
    lines.append(f"             with {steps} in flight for each; all of them share {shared}")
    return lines


def _fitting(memory: MemoryPlan, limit: int | None) -> list[str]:
    settings = memory.settings
    lines = []
    if settings.data_parallel > 1:
        lines.append(
            f"each rank    all of this is one of {settings.data_parallel} data-parallel ranks; each has as much"
        )
    for length in lengths(memory):
        fitting = memory.sequences(length)
        vllm = memory.cache.concurrency(memory.blocks, length, settings.tokens_in_flight)
        noun = "sequence" if fitting == 1 else "sequences"
        counted = f"{vllm:,.2f}" if vllm < ROUNDED else f"{vllm:,.0f}"
        lines.append(f"fits         {fitting:,} {noun} of {length:,} tokens; vLLM counts {counted}")
    if settings.max_num_seqs < memory.sequences(settings.max_model_len):
        at_once = f"{settings.max_num_seqs} run concurrently (max-num-seqs)"
        lines.append(f"             {at_once}; the rest caches prefixes")
    longest = memory.longest(limit or memory.settings.max_model_len)
    line = f"largest      a context of {longest:,} tokens, alone"
    if longest == limit:
        line += " (the model's limit)"
    lines.append(line)
    problem = memory.problem(Level.HIGH)
    if problem:
        lines += wrapped(f"  tight      should all that is assumed be at its upper end: {problem}")
    return lines


def _unfitting(memory: MemoryPlan, changes: tuple[MemoryChange, ...]) -> list[str]:
    lines = wrapped(f"fits         {_VERDICTS[memory.verdict]}: {memory.problem()}")
    for change in changes:
        lines.append(f"  to fit     {' '.join(change.options)}")
    return lines


def _bounds(memory: MemoryPlan) -> str:
    if memory.total is None:
        return "the KV cache alone is bounded"
    kind = "unified" if memory.unified else "on the GPU"
    total = readable_bytes(memory.total)
    if memory.available is not None:
        kept = RESERVE if memory.unified else CONTEXT
        free = f"{readable_bytes(memory.available)} free, {readable_bytes(kept)} of it left alone"
        return f"{total} {kind}, {free}"
    requested = f"{readable_bytes(memory.requested)} for vLLM ({memory.utilization:g} of it)"
    return f"{total} {kind}, {requested}"


def _entry(sign: str, name: str, text: str) -> str:
    return f"  {sign} {name:12}{text}"


def _bar(memory: MemoryPlan) -> str:
    """Return each part's share of the total, in letters, so that it can be read without colour."""
    total = memory.total or 1
    shares = [(_SIGNS[part.name], part.expected) for part in memory.parts]
    shares.append((_KV_SIGN, max(0, memory.kv_bytes())))
    text = ""
    drawn_bytes = 0
    for sign, size in shares:
        drawn_bytes += size
        text += sign * (round(BAR * drawn_bytes / total) - len(text))
    return text.ljust(BAR, _FREE_SIGN)[:BAR]
