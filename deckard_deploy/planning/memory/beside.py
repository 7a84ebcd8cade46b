"""The memory that the running deployments of a machine leave for another one.

All bytes are of one GPU, or of a unified machine. A deployment counts
with what its recorded plan takes, also while it still loads and has not taken it yet.
"""

from math import ceil, floor
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Hardware
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.changes import smallest_changes
from deckard_deploy.planning.memory.fit import CONTEXT, RESERVE, MemoryPlan, memory_of, with_serve
from deckard_deploy.planning.memory.parts import readable_bytes
from deckard_deploy.planning.memory.settings import GIB, UnknownMemoryError
from deckard_deploy.planning.plan import LaunchPlan

_UTILIZATION = "gpu-memory-utilization"
# The upper ends of what is assumed for the engine and its CUDA graphs, and the lower end for the engine (parts.py).
_ENGINE_MOST, _ENGINE_LEAST = int(8.7 * GIB), int(5.4 * GIB)


class Neighbour(NamedTuple):
    """A deployment that runs. gpus: ids; empty: of a machine with one memory. taken: bytes on each of its GPUs.

    resolved: its choice, as this version of the tool resolves it; None: not recorded, or not valid any more.
    """

    name: str
    profile: str
    model: str
    port: int
    gpus: tuple[str, ...]
    taken: int
    resolved: Resolved | None


class SharedMachine(NamedTuple):
    """A machine on which other deployments run.

    total: bytes. free: what they leave, and what is free by the machine's own figures if that is less.
    """

    neighbours: tuple[Neighbour, ...]
    total: int
    free: int
    unified: bool

    @property
    def usable(self) -> int:
        """The bytes that another engine may ask for."""
        return max(0, self.free - (RESERVE if self.unified else CONTEXT))

    @property
    def names(self) -> str:
        """The names of the neighbours."""
        return ", ".join(each.name for each in self.neighbours)


class SharedChange(NamedTuple):
    """Options of this plan and of a running deployment with which both fit."""

    options: tuple[str, ...]
    neighbour: str
    neighbour_options: tuple[str, ...]


def taken_by(plan: LaunchPlan, hardware: Hardware, weight_bytes: int) -> int:
    """Return the bytes that a plan takes of each of its GPUs. weight_bytes: of all its weights.

    Without a fixed KV cache that is the share that vLLM fills; on a CPU the KV cache and the weights.
    """
    if hardware.gpu_count == 0 or hardware.memory_gib is None:
        space = plan.environment.get("VLLM_CPU_KVCACHE_SPACE", "0")
        return weight_bytes + int(space if space.isdecimal() else 0) * GIB
    fixed = plan.option("kv-cache-memory-bytes")
    if fixed and fixed.isdecimal():
        return weight_bytes // plan.ranks + int(fixed) + _ENGINE_MOST
    return ceil(hardware.memory_gib * GIB * float(plan.option(_UTILIZATION) or 0.9))


def requested(resolved: Resolved, total: int) -> int:
    """Return the bytes that must be free when the engine starts (vLLM 0.19.1, v1/worker/utils.py:39)."""
    share = resolved.serve.get(_UTILIZATION, 0.9)
    return ceil(total * (share if isinstance(share, int | float) else 0.9))


def problem_beside(resolved: Resolved, shared: SharedMachine) -> str:
    """Return why a plan whose memory is not computed does not fit next to the others; "" if it may."""
    if resolved.profile.hardware.gpu_count == 0:
        return ""
    wanted = requested(resolved, shared.total)
    if wanted <= shared.usable:
        return ""
    return (
        f"vLLM wants {readable_bytes(wanted)} free when it starts, and {shared.names} and the reserve leave "
        f"{readable_bytes(shared.usable)}"
    )


def smaller_share(resolved: Resolved, usable: int, total: int) -> str:
    """Return the option with the largest share below `usable`; "" if weights and engine do not fit into it."""
    share = floor(100 * usable / total) / 100
    if share * total < resolved.model.size_gb * 1e9 + _ENGINE_LEAST:
        return ""
    return f"{_UTILIZATION}={share:g}"


def changes_for_both(resolved: Resolved, shared: SharedMachine) -> SharedChange | None:
    """Return the changes of this plan and of the largest neighbour with which both fit; None if there are none.

    The neighbour gives what this plan needs at least; this plan then takes what is left.
    """
    neighbour = max(shared.neighbours, key=lambda each: each.taken)
    if neighbour.resolved is None or shared.total <= neighbour.taken:
        return None
    reserve = shared.free - shared.usable
    others = shared.total - shared.free - neighbour.taken
    need = _least(resolved)
    given = _options_within(neighbour.resolved, shared.total - others - need - reserve, shared)
    if not given:
        return None
    smaller, options = given
    rest = shared.total - others - requested(smaller, shared.total)
    own = _options_within(resolved, rest - reserve, shared)
    if own is None:
        return None
    return SharedChange(own[1], neighbour.name, options)


def _least(resolved: Resolved) -> int:
    """Return the fewest bytes with which the plan starts: weights, engine, and one sequence where that is known."""
    memory = _memory(resolved, None)
    if memory is None:
        return int(resolved.model.size_gb * 1e9) + _ENGINE_MOST
    return memory.taken() + memory.bytes_per_sequence


def _options_within(
    resolved: Resolved, usable: int, shared: SharedMachine
) -> tuple[Resolved, tuple[str, ...]] | None:
    """Return the choice and the options with which it needs `usable` bytes at most; None if it cannot."""
    if requested(resolved, shared.total) <= usable:
        return resolved, ()
    option = smaller_share(resolved, usable, shared.total)
    if not option:
        return None
    share = float(option.partition("=")[2])
    smaller = with_serve(resolved, gpu_memory_utilization=share, kv_cache_memory_bytes=None)
    memory = _memory(smaller, usable + (RESERVE if shared.unified else CONTEXT))
    if memory is None or not memory.problem():
        return smaller, (f"--set {option}",)
    for change in smallest_changes(smaller, memory):
        if requested(change.resolved, shared.total) <= usable:
            return change.resolved, (f"--set {option}", *change.options)
    return None


def _memory(resolved: Resolved, available: int | None) -> MemoryPlan | None:
    try:
        return memory_of(resolved, available=available)
    except (UnknownMemoryError, BadInputError):
        return None
