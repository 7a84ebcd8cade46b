"""When a plan does not fit: the smallest changes with which it does, each of them tried."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, floor

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.fit import RESERVE, Memory, memory_of, with_serve

LENGTH_STEP = 1024  # tokens; a length is rounded down to it
SHORTEST = 2048  # tokens: less is no context for a chat model
# Discrete: the rest is for CUDA graphs, which 0.19.1 does not count, and a display. Unified: the model card's value;
# more is not free when a Spark has booted (github MiaAI-Lab/GLM-5.3-Flash-EXL3-2x-DGX-Sparks issue 47).
_MOST_UTILIZATION = {"discrete": 0.95, "unified": 0.85}


@dataclass(frozen=True)
class Change:
    """What to type, and the memory that results."""

    options: tuple[str, ...]
    resolved: Resolved
    memory: Memory

    @property
    def length(self) -> int:
        """The context that it leaves, in tokens."""
        return self.memory.settings.max_model_len


Step = Callable[[Resolved, Memory], tuple[str, Resolved] | None]


def smallest_changes(resolved: Resolved, memory: Memory, *, number: int = 3) -> tuple[Change, ...]:
    """Up to `number` sets of changes with which the plan fits; single ones first, the least costly of them first.

    A set that contains another one is left out, unless it leaves twice the context. Every change was computed again as
    a whole plan.
    """
    found: list[tuple[set[Step], Change]] = []
    for size in (1, 2, 3):
        for steps in combinations(_STEPS, size):
            change = _changed(resolved, memory, steps)
            contained = [one for smaller, one in found if smaller <= set(steps)]
            if (
                change
                and not change.memory.problem()
                and all(change.length >= 2 * one.length for one in contained)
            ):
                found.append((set(steps), change))
        if len(found) >= number:
            break
    return tuple(change for _, change in found[:number])


def _changed(resolved: Resolved, memory: Memory, steps: tuple[Step, ...]) -> Change | None:
    options = []
    for step in steps:
        done = step(resolved, memory)
        if done is None:
            return None
        option, resolved = done
        try:
            memory = memory_of(resolved, available=memory.available, known=memory.known)
        except BadInputError:  # a layout that the engine refuses is no way out
            return None
        options.append(option)
    return Change(tuple(options), resolved, memory)


def _hybrid(resolved: Resolved, memory: Memory) -> tuple[str, Resolved] | None:
    if memory.settings.hybrid:
        return None
    name = "disable-hybrid-kv-cache-manager"
    return f"--set {name}=null", with_serve(resolved, **{name: None})


def _smaller_batch(resolved: Resolved, memory: Memory) -> tuple[str, Resolved] | None:
    """vLLM's own value for small GPUs (engine/arg_utils.py:2067)."""
    if memory.settings.in_flight <= 2048:
        return None
    return "--set max-num-batched-tokens=2048", with_serve(resolved, max_num_batched_tokens=2048)


def _utilization(resolved: Resolved, memory: Memory) -> tuple[str, Resolved] | None:
    """As much more as is missing, or the most that is safe; less where vLLM would not find so much free."""
    if memory.total is None:
        return None
    most = _MOST_UTILIZATION["unified" if memory.unified else "discrete"]
    if memory.available is not None:
        most = floor(100 * (memory.available - RESERVE) / memory.total) / 100
    missing = max(0, memory.need - memory.kv_bytes())
    wanted = min(most, ceil(100 * (memory.utilization + missing / memory.total)) / 100)
    if (
        wanted <= 0
        or wanted == memory.utilization
        or (wanted < memory.utilization and memory.available is None)
    ):
        return None
    return f"--set gpu-memory-utilization={wanted:g}", with_serve(resolved, gpu_memory_utilization=wanted)


def _fp8(resolved: Resolved, memory: Memory) -> tuple[str, Resolved] | None:
    if memory.settings.element_bytes == 1 or memory.total is None:
        return None
    return "--set kv-cache-dtype=fp8", with_serve(resolved, kv_cache_dtype="fp8")


def _no_drafter(resolved: Resolved, _: Memory) -> tuple[str, Resolved] | None:
    return ("--drafter none", replace(resolved, drafter=None)) if resolved.drafter else None


def _shorter(resolved: Resolved, memory: Memory) -> tuple[str, Resolved] | None:
    length = memory.longest(memory.settings.max_model_len) // LENGTH_STEP * LENGTH_STEP
    if not SHORTEST <= length < memory.settings.max_model_len:
        return None
    return f"--set max-model-len={length}", with_serve(resolved, max_model_len=length)


def _second_gpu(resolved: Resolved, memory: Memory) -> tuple[str, Resolved] | None:
    if memory.unified or memory.total is None or memory.settings.tensor_parallel > 1:
        return None
    return "--set tensor-parallel-size=2 (a second GPU)", with_serve(resolved, tensor_parallel_size=2)


def _own_kv_bytes(resolved: Resolved, _: Memory) -> tuple[str, Resolved] | None:
    if "kv-cache-memory-bytes" not in resolved.serve:
        return None
    return "--set kv-cache-memory-bytes=null", with_serve(resolved, kv_cache_memory_bytes=None)


# From what costs nothing to what costs most.
_STEPS: tuple[Step, ...] = (
    _hybrid,
    _own_kv_bytes,
    _utilization,
    _smaller_batch,
    _fp8,
    _no_drafter,
    _shorter,
    _second_gpu,
)


def in_words(changes: tuple[Change, ...]) -> Iterator[str]:
    """A line for each: what to type, and what is left for the KV cache then."""
    for change in changes:
        yield " ".join(change.options)
