"""The smallest changes with which a plan fits into memory, each of them verified."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, floor

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.fit import CONTEXT, RESERVE, MemoryPlan, memory_of, with_serve

LENGTH_STEP = 1024  # tokens; a length is rounded down to it
MIN_LENGTH = 2048  # tokens; less context is too little for a chat model
# Discrete: the rest is for a display, and for CUDA graphs, which 0.19.1 does not count. Unified: the model
# card's value; a booted Spark has no more free (github MiaAI-Lab/GLM-5.3-Flash-EXL3-2x-DGX-Sparks issue 47).
_MAX_UTILIZATION = {"discrete": 0.95, "unified": 0.85}


@dataclass(frozen=True)
class MemoryChange:
    """Options to type, and the choice and memory that result."""

    options: tuple[str, ...]
    resolved: Resolved
    memory: MemoryPlan

    @property
    def length(self) -> int:
        """The context in tokens that is left."""
        return self.memory.settings.max_model_len


ChangeStep = Callable[[Resolved, MemoryPlan], tuple[str, Resolved] | None]


def smallest_changes(resolved: Resolved, memory: MemoryPlan, *, number: int = 3) -> tuple[MemoryChange, ...]:
    """Return up to `number` sets of changes with which the plan fits: the smallest first, then the cheapest.

    A set that contains another one is left out, unless it leaves twice the context. The memory of every set
    is computed again for the whole plan.
    """
    found: list[tuple[set[ChangeStep], MemoryChange]] = []
    for size in (1, 2, 3):
        for steps in combinations(_STEPS, size):
            change = _apply(steps, resolved, memory)
            if change and _is_useful(set(steps), change, found):
                found.append((set(steps), change))
        if len(found) >= number:
            break
    return tuple(change for _, change in found[:number])


def _is_useful(
    steps: set[ChangeStep], change: MemoryChange, found: list[tuple[set[ChangeStep], MemoryChange]]
) -> bool:
    """Return True if the plan fits, and with twice the context of each smaller set that `steps` contains."""
    if change.memory.problem():
        return False
    for smaller_steps, smaller in found:
        if smaller_steps <= steps and change.length < 2 * smaller.length:
            return False
    return True


def _apply(steps: tuple[ChangeStep, ...], resolved: Resolved, memory: MemoryPlan) -> MemoryChange | None:
    """Apply the steps one after the other; None where a step changes nothing, or vLLM refuses the layout."""
    options = []
    for step in steps:
        changed = step(resolved, memory)
        if changed is None:
            return None
        option, resolved = changed
        try:
            memory = memory_of(resolved, available=memory.available, known=memory.known)
        except BadInputError:
            return None
        options.append(option)
    return MemoryChange(tuple(options), resolved, memory)


def _enable_hybrid_cache(resolved: Resolved, memory: MemoryPlan) -> tuple[str, Resolved] | None:
    if memory.settings.hybrid:
        return None
    name = "disable-hybrid-kv-cache-manager"
    return f"--set {name}=null", with_serve(resolved, **{name: None})


def _shrink_batch(resolved: Resolved, memory: MemoryPlan) -> tuple[str, Resolved] | None:
    """Use vLLM's own value for small GPUs (engine/arg_utils.py:2067)."""
    if memory.settings.in_flight <= 2048:
        return None
    return "--set max-num-batched-tokens=2048", with_serve(resolved, max_num_batched_tokens=2048)


def _adjust_utilization(resolved: Resolved, memory: MemoryPlan) -> tuple[str, Resolved] | None:
    """Raise the utilization as far as needed, up to a safe maximum; lower it where less memory is free."""
    if memory.total is None:
        return None
    if memory.available is not None:
        kept = RESERVE if memory.unified else CONTEXT
        maximum = floor(100 * (memory.available - kept) / memory.total) / 100
    else:
        maximum = _MAX_UTILIZATION["unified" if memory.unified else "discrete"]
    missing = max(0, memory.bytes_per_sequence - memory.kv_bytes())
    wanted = min(maximum, ceil(100 * (memory.utilization + missing / memory.total)) / 100)
    if wanted <= 0 or wanted == memory.utilization:
        return None
    if wanted < memory.utilization and memory.available is None:
        return None
    return f"--set gpu-memory-utilization={wanted:g}", with_serve(resolved, gpu_memory_utilization=wanted)


def _use_fp8_cache(resolved: Resolved, memory: MemoryPlan) -> tuple[str, Resolved] | None:
    if memory.settings.element_bytes == 1 or memory.total is None:
        return None
    return "--set kv-cache-dtype=fp8", with_serve(resolved, kv_cache_dtype="fp8")


def _drop_drafter(resolved: Resolved, _: MemoryPlan) -> tuple[str, Resolved] | None:
    if resolved.drafter is None:
        return None
    return "--drafter none", replace(resolved, drafter=None)


def _shorten_context(resolved: Resolved, memory: MemoryPlan) -> tuple[str, Resolved] | None:
    length = memory.longest(memory.settings.max_model_len) // LENGTH_STEP * LENGTH_STEP
    if not MIN_LENGTH <= length < memory.settings.max_model_len:
        return None
    return f"--set max-model-len={length}", with_serve(resolved, max_model_len=length)


def _add_second_gpu(resolved: Resolved, memory: MemoryPlan) -> tuple[str, Resolved] | None:
    if memory.unified or memory.total is None or memory.settings.tensor_parallel > 1:
        return None
    return "--set tensor-parallel-size=2 (a second GPU)", with_serve(resolved, tensor_parallel_size=2)


def _drop_fixed_cache_size(resolved: Resolved, _: MemoryPlan) -> tuple[str, Resolved] | None:
    if "kv-cache-memory-bytes" not in resolved.serve:
        return None
    return "--set kv-cache-memory-bytes=null", with_serve(resolved, kv_cache_memory_bytes=None)


# From the change that costs nothing to the most costly one.
_STEPS: tuple[ChangeStep, ...] = (
    _enable_hybrid_cache,
    _drop_fixed_cache_size,
    _adjust_utilization,
    _shrink_batch,
    _use_fp8_cache,
    _drop_drafter,
    _shorten_context,
    _add_second_gpu,
)
