"""What a deployment takes of a GPU's memory, and what is left for the KV cache; bytes throughout.

The KV cache's layout is exact (kv_cache); how much is available to it is not, as vLLM 0.19.1 measures that when it
starts: each part says whether it is assumed or was measured in earlier starts of the same kind on this host, with a
range and a source. `--kv-cache-memory-bytes` makes it exact.
"""

from dataclasses import replace
from math import ceil
from typing import Literal, NamedTuple

from pydantic import JsonValue

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.planning.memory.kv_cache import KvCache
from deckard_deploy.planning.memory.parts import (
    Known,
    Level,
    Part,
    Step,
    engine_parts,
    readable,
    weight_parts,
)
from deckard_deploy.planning.memory.settings import (
    GIB,
    CacheSettings,
    UnknownMemoryError,
    cache_of,
    cache_settings,
)

# Left to the system on a unified machine. A choice: profiling at 0.70 has taken a Spark from there to 112 of 121.69 GiB
# and down (vllm-project/vllm issue 46307), and raised kernel watermarks alone cost 6.2 GiB of MemAvailable
# (github tonyd2wild/GLM-5.3-Flash-NVFP4-DFlash2-2x-DGX-Spark pull request 19).
RESERVE = 8 * GIB
NOTHING_KNOWN = Known()
TYPICAL_LENGTH = 8192  # tokens of a conversation with a document in it: a choice, no measurement


class Memory(NamedTuple):
    """The memory of one GPU, or of a unified machine.

    total: what CUDA sees, None where the KV cache alone is bounded (a CPU). available: what was free when it was
    measured, on a unified machine. given: the KV cache's size, where an option or a variable fixes it. by_request: the
    engine counts as 0.32.0 does, and not as 0.19.1.
    """

    settings: CacheSettings
    step: Step
    cache: KvCache
    parts: tuple[Part, ...]
    total: int | None
    unified: bool
    utilization: float
    available: int | None
    given: int | None
    by_request: bool
    known: Known

    @property
    def requested(self) -> int:
        """What vLLM may take in all, and wants free when it starts (v1/worker/utils.py:39)."""
        return ceil((self.total or 0) * self.utilization)

    @property
    def need(self) -> int:
        """KV cache of one sequence of full length: with less vLLM does not start."""
        return (
            self.cache.sequence_bytes(self.settings.max_model_len, self.settings.unsettled) + self.held_back
        )

    @property
    def held_back(self) -> int:
        """The null block, which 0.32.0 takes off before it asks what fits (v1/core/kv_cache_utils.py:2624)."""
        return self.cache.block_bytes if self.by_request else 0

    def taken(self, level: Level = Level.EXPECTED) -> int:
        """What all but the KV cache takes, as far as that is sized by it; everything where its size is given."""
        whole = self.unified or self.given is not None
        return sum(part.bytes_at(level) for part in self.parts if part.profiled or whole)

    def ceiling(self) -> int:
        """What weights, engine and KV cache may take together."""
        total = self.total or 0
        if not self.unified:
            return total if self.given else self.requested
        return min(self.requested, (self.available or total) - RESERVE)

    def kv_bytes(self, level: Level = Level.EXPECTED) -> int:
        """The KV cache's size."""
        return self.ceiling() - self.taken(level) if self.given is None else self.given

    @property
    def blocks(self) -> int:
        """Blocks of the KV cache."""
        return self.cache.blocks(self.kv_bytes())

    @property
    def tokens(self) -> int:
        """vLLM's "GPU KV cache size"; `by_request`: as so many requests of full length, which releases came to do."""
        if self.by_request:
            return int(self.concurrency * self.settings.max_model_len)
        return self.cache.tokens(self.blocks)

    @property
    def concurrency(self) -> float:
        """vLLM's "Maximum concurrency" for sequences of full length."""
        return self.cache.concurrency(self.blocks, self.settings.max_model_len, self.settings.unsettled)

    def sequences(self, length: int) -> int:
        """Sequences of `length` tokens that fit in practice."""
        return self.cache.sequences(self.blocks, length, self.settings.unsettled)

    def problem(self, level: Level = Level.EXPECTED) -> str:
        """Why vLLM would not start, or nothing."""
        if self.total is None and self.given is None:
            return ""
        if self.available is not None and self.available < self.requested:
            return f"vLLM wants {readable(self.requested)} free when it starts, and {readable(self.available)} are"
        taken = self.taken(level) + (self.given or 0)
        if self.total is not None and taken >= self.ceiling():
            what = (
                f"weights, engine and {readable(self.given)} of KV cache"
                if self.given
                else "weights and engine"
            )
            return f"{what} take {readable(taken)} of {readable(self.ceiling())}"
        if self.need > self.kv_bytes(level):
            return (
                f"a sequence of {self.settings.max_model_len:,} tokens needs {readable(self.need)} of KV cache, and "
                f"{readable(self.kv_bytes(level))} are left"
            )
        return ""

    @property
    def verdict(self) -> Literal["fits", "doubtful", "no"]:
        """`no`: not even with the least that the engine may take; `doubtful`: with that alone."""
        if not self.problem():
            return "fits"
        return "no" if self.problem(Level.LOW) else "doubtful"

    def longest(self, limit: int) -> int:
        """The longest context, up to `limit`, of which one sequence fits."""
        return self.cache.longest(max(0, self.kv_bytes() - self.held_back), limit, self.settings.unsettled)

    def measured_kv_bytes(self) -> int | None:
        """A size for `--kv-cache-memory-bytes`: all sequences at full length, or as many whole ones as fit.

        Whole sequences rather than all that is left: the same figure while other programs come and go. None when not
        even one fits.
        """
        fitting = min(self.settings.max_num_seqs, max(0, self.kv_bytes()) // self.need)
        return fitting * self.need or None


def memory_of(resolved: Resolved, *, available: int | None = None, known: Known = NOTHING_KNOWN) -> Memory:
    """The memory that `resolved` takes.

    available: bytes free on this host, for a unified machine. Raises UnknownMemoryError, and BadInputError where vLLM
    would refuse the layout.
    """
    settings, hardware, serve = cache_settings(resolved), resolved.profile.hardware, resolved.serve
    given = serve.get("kv-cache-memory-bytes")
    if hardware.gpu_count == 0:
        space = resolved.environment.get("VLLM_CPU_KVCACHE_SPACE", "")
        if not space:
            raise UnknownMemoryError("without VLLM_CPU_KVCACHE_SPACE vLLM takes half of the machine's memory")
        if not space.isdecimal() or len(space) > 6:
            raise UnknownMemoryError("VLLM_CPU_KVCACHE_SPACE is not a number of GiB")
        given = int(space) * GIB  # v1/worker/cpu_worker.py:146
    elif hardware.memory_gib is None:
        raise UnknownMemoryError(f"the memory of {hardware.gpu} is not known")
    utilization = serve.get("gpu-memory-utilization", 0.9)
    step = Step(
        in_flight=settings.in_flight,
        max_num_seqs=settings.max_num_seqs,
        tensor_parallel=settings.tensor_parallel,
        drafter=resolved.drafter.name if resolved.drafter else None,
    )
    alike = [start for start in known.starts if start.step == step]
    return Memory(
        settings=settings,
        step=step,
        cache=cache_of(resolved, settings),
        parts=(
            *weight_parts(resolved, settings, known.weight_bytes),
            *engine_parts(resolved, hardware, alike),
        ),
        total=None if hardware.memory_gib is None else int(hardware.memory_gib * GIB),
        unified=hardware.memory == "unified",
        utilization=float(utilization) if isinstance(utilization, int | float) else 0.9,
        available=available if hardware.memory == "unified" else None,
        given=given if isinstance(given, int) else None,
        by_request=resolved.engine.vllm_version != "0.19.1",  # 0.32.0, v1/core/kv_cache_utils.py:2309
        known=known,
    )


def with_serve(resolved: Resolved, **changes: JsonValue) -> Resolved:
    """The same choice with other vLLM options ('_' for '-'; None takes one out)."""
    serve = {**resolved.serve, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return replace(resolved, serve={name: value for name, value in serve.items() if value is not None})
