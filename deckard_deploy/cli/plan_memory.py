"""The memory of a plan on the screen and as JSON; and what is refused because it cannot run."""

import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Generated
from deckard_deploy.errors import DoesNotFitError
from deckard_deploy.planning.memory.changes import Change, smallest_changes
from deckard_deploy.planning.memory.fit import (
    NOTHING_KNOWN,
    RESERVE,
    TYPICAL_LENGTH,
    Memory,
    memory_of,
    with_serve,
)
from deckard_deploy.planning.memory.parts import Known, Level, Part, readable
from deckard_deploy.planning.memory.settings import GIB, UnknownMemoryError
from deckard_deploy.planning.plan import LaunchPlan

BAR = 62  # characters, so that a line has fewer than 80
_SIGNS = {"weights": "#", "drafter": "+", "engine": "=", "CUDA graphs": "~"}
_KV_SIGN, _FREE_SIGN = "k", "."
# A host is the profile's machine with so much of its memory, and no more than 2 GiB above it: firmware keeps more or
# less for itself. Sparks have 121.69 GiB (profiles/spark.yaml) or 119.68 (leptonai/gpud pull request 1170).
_LEAST, _MORE = 0.9, 2 * GIB


def planned_memory(
    resolved: Resolved, *, available: int | None, known: Known = NOTHING_KNOWN
) -> Memory | str:
    """The plan's memory (`memory_of`), or why it is not known. Raises BadInputError for a layout that vLLM refuses."""
    try:
        return memory_of(resolved, available=available, known=known)
    except UnknownMemoryError as error:
        return str(error)


def with_measured_memory(
    resolved: Resolved, current: LaunchPlan | None, *, meminfo: Path, known: Known = NOTHING_KNOWN
) -> tuple[Resolved, int | None]:
    """On the unified machine that the profile is for: the KV cache's size as an option, and the bytes that are free.

    vLLM sizes the KV cache by what profiling sees, and page cache disturbs that on such a machine. A current release
    keeps its size: what is free now, while it runs, says nothing about its successor. Elsewhere nothing changes.
    """
    if isinstance(resolved.model.weights, Generated) or resolved.compatibility:
        return resolved, None
    resolved, available = on_this_host(resolved, meminfo=meminfo)
    if available is None:
        return resolved, None
    free = None if current else available
    if "kv-cache-memory-bytes" in resolved.serve:
        return resolved, free
    memory = planned_memory(resolved, available=free, known=known)
    size = None if isinstance(memory, str) or memory.problem() else memory.measured_kv_bytes()
    return (with_serve(resolved, kv_cache_memory_bytes=size) if size else resolved), free


def on_this_host(resolved: Resolved, *, meminfo: Path) -> tuple[Resolved, int | None]:
    """The choice with the memory that this machine has, and the bytes that are free.

    As it was, and None, where this is not the unified machine that the profile is for.
    """
    hardware = resolved.profile.hardware
    if hardware.memory != "unified" or not hardware.memory_gib:
        return resolved, None
    (total, available), planned = host_memory(meminfo), hardware.memory_gib * GIB
    if not _LEAST * planned <= total <= planned + _MORE:
        return resolved, None
    hardware = hardware.model_copy(update={"memory_gib": total / GIB})
    return replace(resolved, profile=resolved.profile.model_copy(update={"hardware": hardware})), available


def kv_bytes_of(plan: LaunchPlan) -> int | None:
    """The KV cache's size that a plan was made with."""
    name = "--kv-cache-memory-bytes"
    return int(plan.arguments[plan.arguments.index(name) + 1]) if name in plan.arguments else None


def host_memory(meminfo: Path) -> tuple[int, int]:
    """MemTotal and MemAvailable of /proc/meminfo, in bytes; zeros where there is none (no Linux)."""
    try:
        lines = meminfo.read_text("ascii").splitlines()
    except FileNotFoundError:
        return 0, 0
    known = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return known.get("MemTotal", 0), known.get("MemAvailable", 0)


def refuse_what_cannot_run(resolved: Resolved, memory: Memory | str) -> None:
    """Raise DoesNotFitError for a model of the hub that would not start even if the engine took its least."""
    if (
        isinstance(memory, str)
        or isinstance(resolved.model.weights, Generated)
        or not memory.problem(Level.LOW)
    ):
        return

    raise does_not_fit(memory, smallest_changes(resolved, memory))


def does_not_fit(memory: Memory, changes: "tuple[Change, ...]") -> DoesNotFitError:
    """The error, with up to three changes that were tried."""
    hint = "; or: ".join(" ".join(change.options) for change in changes)
    if not hint and memory.available is not None:
        hint = "stop what holds the memory; deckard-deploy doctor says what that may be"
    return DoesNotFitError(
        f"it does not fit: {memory.problem(Level.LOW)}",
        hint=hint or "a GPU with more memory, or a smaller model",
    )


def memory_json(memory: Memory | str, changes: "tuple[Change, ...]") -> dict[str, Any]:
    """What `plan --json` says of the memory; sizes in bytes, lengths in tokens."""
    if isinstance(memory, str):
        return {"unknown": memory}
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
            "exact": memory.given is not None,
            "groups": [[len(group.layers), group.block_size] for group in memory.cache.groups],
            "block_bytes": memory.cache.block_bytes,
            "blocks": memory.blocks,
            "tokens": memory.tokens,
            "max_concurrency": round(memory.concurrency, 2),
        },
        "sequence": {"tokens": settings.max_model_len, "bytes": memory.need, "in_flight": settings.in_flight},
        "sequences": {str(length): memory.sequences(length) for length in lengths(memory)},
    }


def lengths(memory: Memory) -> tuple[int, ...]:
    """Full length, and a typical one where that is shorter."""
    full = memory.settings.max_model_len
    return (full, TYPICAL_LENGTH) if full > TYPICAL_LENGTH else (full,)


def memory_lines(memory: Memory | str, changes: "tuple[Change, ...]", *, limit: int) -> list[str]:
    """The memory as text of at most 80 columns. limit: the model's longest context."""
    if isinstance(memory, str):
        return [f"memory       not known: {memory}"]
    lines = [f"memory       {_bounds(memory)}"]
    if memory.total:
        lines.append(f"             |{_bar(memory)}|")
    lines += [
        _entry(_SIGNS[part.name], part.name, readable(part.expected) + _span(part)) for part in memory.parts
    ]
    kv = readable(max(0, memory.kv_bytes())) + (" (fixed)" if memory.given else " (what is left)")
    lines.append(_entry(_KV_SIGN, "KV cache", f"{kv}: {memory.tokens:,} tokens as vLLM counts"))
    settings = memory.settings
    kind = {1: "fp8", 2: "BF16", 4: "float32"}[settings.element_bytes]
    lines.append(f"sequence     {readable(memory.need)} for {settings.max_model_len:,} tokens in {kind}")
    return [*lines, *(_fitting(memory, limit) if memory.verdict == "fits" else _unfitting(memory, changes))]


def _span(part: Part) -> str:
    how = "measured here" if part.measured else "assumed"
    if part.low == part.high:
        return f" ({how})" if part.measured else ""
    return f" ({readable(part.low)} to {readable(part.high)}, {how})"


def explained(memory: Memory | str) -> list[str]:
    """The KV cache's reckoning with its numbers, and where each other figure is from."""
    if isinstance(memory, str):
        return []
    cache, settings = memory.cache, memory.settings
    blocks = cache.sequence_blocks(settings.max_model_len, settings.unsettled)
    steps, shared = ("a step", "one") if settings.steps == 1 else ("two steps", "two")
    kinds = Counter((group.layers[0].slides, group.block_size, len(group.layers)) for group in cache.groups)
    lines = [f"KV cache     a block is {cache.block_bytes:,} bytes over all layers; groups:"]
    for (slides, size, layers), count in kinds.items():
        kind = "sliding" if slides else "full"
        lines.append(f"             {count} of {layers} {kind} layers, {size} tokens a block")
    lines += [
        "             full: ceil(length / block); sliding: ceil(min(window - 1 + in",
        f"             flight, length) / block) + 1; in flight {settings.unsettled:,} tokens: {steps}",
        f"             a sequence: {blocks:,} blocks * {cache.block_bytes:,} = {blocks * cache.block_bytes:,} bytes",
    ]
    if memory.held_back:
        lines.append(f"             and {memory.held_back:,} for the null block = {memory.need:,} bytes")
    lines += [
        f"             {memory.blocks:,} blocks / {blocks:,} = {memory.concurrency:.2f} sequences, as vLLM counts:",
        f"             with {steps} in flight for each; all of them share {shared}",
    ]
    for part in memory.parts:
        lines += _wrapped(f"{part.name:13}{part.source}")
    return lines


def _fitting(memory: Memory, limit: int) -> list[str]:
    lines = []
    for length in lengths(memory):
        vllm = memory.cache.concurrency(memory.blocks, length, memory.settings.unsettled)
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
        lines += _wrapped(f"  tight      should all that is assumed be at its upper end: {high}")
    return lines


def _unfitting(memory: Memory, changes: "tuple[Change, ...]") -> list[str]:
    verdict = "NO" if memory.verdict == "no" else "DOUBTFUL"
    lines = _wrapped(f"fits         {verdict}: {memory.problem()}")
    return [*lines, *(f"  it would   {' '.join(change.options)}" for change in changes)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 80, subsequent_indent=" " * 13)


def _bounds(memory: Memory) -> str:
    if memory.total is None:
        return "the KV cache alone is bounded"
    kind = "unified" if memory.unified else "on the GPU"
    if memory.available is not None:
        free = f"{readable(memory.available)} free, {readable(RESERVE)} of it left alone"
        return f"{readable(memory.total)} {kind}, {free}"
    return f"{readable(memory.total)} {kind}, {readable(memory.requested)} for vLLM ({memory.utilization:g} of it)"


def _entry(sign: str, name: str, text: str) -> str:
    return f"  {sign} {name:12}{text}"


def _bar(memory: Memory) -> str:
    """Each part's share of the total, in letters, so that it can be read without colour."""
    total = memory.total or 1
    shares = [(_SIGNS[part.name], part.expected) for part in memory.parts]
    shares.append((_KV_SIGN, max(0, memory.kv_bytes())))
    text, spent = "", 0
    for sign, size in shares:
        spent += size
        text += sign * (round(BAR * spent / total) - len(text))
    return text.ljust(BAR, _FREE_SIGN)[:BAR]
