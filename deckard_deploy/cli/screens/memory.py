"""The memory of a plan on the screen and as JSON; and what is refused because it cannot run."""

from collections import Counter
from typing import Any

from deckard_deploy.cli.screens.layout import wrapped
from deckard_deploy.planning.memory.changes import MemoryChange
from deckard_deploy.planning.memory.fit import (
    RESERVE,
    TYPICAL_LENGTH,
    MemoryPlan,
)
from deckard_deploy.planning.memory.parts import Level, MemoryPart, readable_bytes
from deckard_deploy.system.unknown import Unknown

BAR = 62  # characters, so that a line has fewer than 80
_SIGNS = {"weights": "#", "drafter": "+", "engine": "=", "CUDA graphs": "~"}
_KV_SIGN, _FREE_SIGN = "k", "."


def memory_json(memory: MemoryPlan | Unknown, changes: tuple[MemoryChange, ...]) -> dict[str, Any]:
    """What `plan --json` says of the memory; sizes in bytes, lengths in tokens."""
    if isinstance(memory, Unknown):
        return {"unknown": memory.reason}
    settings = memory.settings
    return {
        "verdict": memory.verdict,
        "problem": memory.problem() or None,
        "changes": [list(change.options) for change in changes],
        "total": memory.total,
        "available": memory.available,
        "requested": memory.requested if memory.total else None,
        "parts": [
            {
                "name": p.name,
                "expected": p.expected,
                "low": p.low,
                "high": p.high,
                "measured": p.measured,
                "source": p.source,
            }
            for p in memory.parts
        ],
        "kv_cache": {
            "bytes": memory.kv_bytes(),
            "exact": memory.fixed_kv_bytes is not None,
            "groups": [[len(group.layers), group.block_size] for group in memory.cache.groups],
            "block_bytes": memory.cache.block_bytes,
            "blocks": memory.blocks,
            "tokens": memory.tokens,
            "max_concurrency": round(memory.concurrency, 2),
        },
        "sequence": {
            "tokens": settings.max_model_len,
            "bytes": memory.bytes_per_sequence,
            "in_flight": settings.in_flight,
        },
        "sequences": {str(length): memory.sequences(length) for length in lengths(memory)},
    }


def lengths(memory: MemoryPlan) -> tuple[int, ...]:
    """Full length, and a typical one where that is shorter."""
    full = memory.settings.max_model_len
    return (full, TYPICAL_LENGTH) if full > TYPICAL_LENGTH else (full,)


def memory_lines(memory: MemoryPlan | Unknown, changes: tuple[MemoryChange, ...], *, limit: int) -> list[str]:
    """The memory as text of at most 80 columns. limit: the model's longest context."""
    if isinstance(memory, Unknown):
        return [f"memory       not known: {memory}"]
    lines = [f"memory       {_bounds(memory)}"]
    if memory.total:
        lines.append(f"             |{_bar(memory)}|")
    lines += [
        _entry(_SIGNS[part.name], part.name, readable_bytes(part.expected) + _span(part))
        for part in memory.parts
    ]
    kv = readable_bytes(max(0, memory.kv_bytes())) + (
        " (fixed)" if memory.fixed_kv_bytes else " (what is left)"
    )
    lines.append(_entry(_KV_SIGN, "KV cache", f"{kv}: {memory.tokens:,} tokens as vLLM counts"))
    settings = memory.settings
    kind = {1: "fp8", 2: "BF16", 4: "float32"}[settings.element_bytes]
    lines.append(
        f"sequence     {readable_bytes(memory.bytes_per_sequence)} for {settings.max_model_len:,} tokens in {kind}"
    )
    return [*lines, *(_fitting(memory, limit) if memory.verdict == "fits" else _unfitting(memory, changes))]


def _span(part: MemoryPart) -> str:
    how = "measured here" if part.measured else "assumed"
    if part.low == part.high:
        return f" ({how})" if part.measured else ""
    return f" ({readable_bytes(part.low)} to {readable_bytes(part.high)}, {how})"


def explained(memory: MemoryPlan | Unknown) -> list[str]:
    """The KV cache's reckoning with its numbers, and where each other figure is from."""
    if isinstance(memory, Unknown):
        return []
    cache, settings = memory.cache, memory.settings
    blocks = cache.sequence_blocks(settings.max_model_len, settings.tokens_in_flight)
    steps, shared = ("a step", "one") if settings.steps == 1 else ("two steps", "two")
    kinds = Counter((group.layers[0].slides, group.block_size, len(group.layers)) for group in cache.groups)
    lines = [f"KV cache     a block is {cache.block_bytes:,} bytes over all layers; groups:"]
    for (slides, size, layers), count in kinds.items():
        kind = "sliding" if slides else "full"
        lines.append(f"             {count} of {layers} {kind} layers, {size} tokens a block")
    lines += [
        "             full: ceil(length / block); sliding: ceil(min(window - 1 + in",
        f"             flight, length) / block) + 1; in flight {settings.tokens_in_flight:,} tokens: {steps}",
        f"             a sequence: {blocks:,} blocks * {cache.block_bytes:,} = {blocks * cache.block_bytes:,} bytes",
    ]
    if memory.null_block_bytes:
        lines.append(
            f"             and {memory.null_block_bytes:,} for the null block = {memory.bytes_per_sequence:,} bytes"
        )
    lines += [
        f"             {memory.blocks:,} blocks / {blocks:,} = {memory.concurrency:.2f} sequences, as vLLM counts:",
        f"             with {steps} in flight for each; all of them share {shared}",
    ]
    for part in memory.parts:
        lines += wrapped(f"{part.name:13}{part.source}")
    return lines


def _fitting(memory: MemoryPlan, limit: int) -> list[str]:
    lines = []
    for length in lengths(memory):
        vllm = memory.cache.concurrency(memory.blocks, length, memory.settings.tokens_in_flight)
        lines.append(
            f"fits         {memory.sequences(length)} sequences of {length:,} tokens; vLLM counts {vllm:.2f}"
        )
    at_once, fitting = memory.settings.max_num_seqs, memory.sequences(memory.settings.max_model_len)
    if at_once < fitting:
        lines.append(f"             {at_once} run at once (max-num-seqs); the rest keeps prefixes for later")
    longest = memory.longest(limit)
    lines.append(
        f"largest      a context of {longest:,} tokens, alone" + (" (the model's limit)" * (longest == limit))
    )
    if high := memory.problem(Level.HIGH):
        lines += wrapped(f"  tight      should all that is assumed be at its upper end: {high}")
    return lines


def _unfitting(memory: MemoryPlan, changes: tuple[MemoryChange, ...]) -> list[str]:
    verdict = "NO" if memory.verdict == "no" else "DOUBTFUL"
    lines = wrapped(f"fits         {verdict}: {memory.problem()}")
    return [*lines, *(f"  it would   {' '.join(change.options)}" for change in changes)]


def _bounds(memory: MemoryPlan) -> str:
    if memory.total is None:
        return "the KV cache alone is bounded"
    kind = "unified" if memory.unified else "on the GPU"
    if memory.available is not None:
        free = f"{readable_bytes(memory.available)} free, {readable_bytes(RESERVE)} of it left alone"
        return f"{readable_bytes(memory.total)} {kind}, {free}"
    requested = f"{readable_bytes(memory.requested)} for vLLM ({memory.utilization:g} of it)"
    return f"{readable_bytes(memory.total)} {kind}, {requested}"


def _entry(sign: str, name: str, text: str) -> str:
    return f"  {sign} {name:12}{text}"


def _bar(memory: MemoryPlan) -> str:
    """Each part's share of the total, in letters, so that it can be read without colour."""
    total = memory.total or 1
    shares = [(_SIGNS[part.name], part.expected) for part in memory.parts]
    shares.append((_KV_SIGN, max(0, memory.kv_bytes())))
    text, spent = "", 0
    for sign, size in shares:
        spent += size
        text += sign * (round(BAR * spent / total) - len(text))
    return text.ljust(BAR, _FREE_SIGN)[:BAR]
