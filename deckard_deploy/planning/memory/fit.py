"""The memory of a GPU that a deployment takes, and the rest for the KV cache; bytes throughout.

The KV cache's layout is exact (kv_cache). Its size is an estimate, because vLLM 0.19.1 measures the free
memory when it starts: each part has a range and a source, and is either assumed or measured in earlier starts
of the same kind on this host. `--kv-cache-memory-bytes` makes the size exact.
"""

from dataclasses import replace
from math import ceil
from typing import Literal, NamedTuple

from pydantic import JsonValue

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.planning.memory.kv_cache import KvCache
from deckard_deploy.planning.memory.parts import (
    BatchShape,
    HostMeasurements,
    Level,
    MemoryPart,
    engine_parts,
    readable_bytes,
    weight_parts,
)
from deckard_deploy.planning.memory.settings import (
    GIB,
    CacheSettings,
    UnknownMemoryError,
    cache_of,
    cache_settings,
)

# Left to the system on a unified machine. This is a choice: profiling at 0.70 took a Spark to 112 of 121.69
# GiB and brought it down (vllm-project/vllm issue 46307), and raised kernel watermarks alone cost 6.2 GiB of
# MemAvailable (github tonyd2wild/GLM-5.3-Flash-NVFP4-DFlash2-2x-DGX-Spark pull request 19).
RESERVE = 8 * GIB
# Left on a GPU that other engines use: the CUDA context of a process comes before vLLM's own check (a choice).
CONTEXT = GIB
NOTHING_KNOWN = HostMeasurements()
TYPICAL_LENGTH = 8192  # tokens of a conversation about a document: a choice, not a measurement


class MemoryPlan(NamedTuple):
    """The memory of one GPU, or of a unified machine.

    total: bytes that CUDA sees; None where only the KV cache is bounded (a CPU). available: bytes that were free on a
    unified machine, or that other deployments leave on a GPU; None: all. fixed_kv_bytes: the KV cache's size, where an
    option or a variable fixes it. counts_by_request: the engine counts tokens as 0.32.0 does, not as 0.19.1.
    """

    settings: CacheSettings
    step: BatchShape
    cache: KvCache
    parts: tuple[MemoryPart, ...]
    total: int | None
    unified: bool
    utilization: float
    available: int | None
    fixed_kv_bytes: int | None
    counts_by_request: bool
    known: HostMeasurements

    @property
    def requested(self) -> int:
        """The most that vLLM may take, which must be free when it starts (v1/worker/utils.py:39)."""
        return ceil((self.total or 0) * self.utilization)

    @property
    def bytes_per_sequence(self) -> int:
        """The KV cache of one sequence of full length: with less vLLM does not start."""
        sequence = self.cache.sequence_bytes(self.settings.max_model_len, self.settings.tokens_in_flight)
        return sequence + self.null_block_bytes

    @property
    def null_block_bytes(self) -> int:
        """The null block, which 0.32.0 subtracts from the free memory (v1/core/kv_cache_utils.py:2624)."""
        return self.cache.block_bytes if self.counts_by_request else 0

    def taken(self, level: Level = Level.EXPECTED) -> int:
        """Return the bytes outside the KV cache that bound its size.

        All parts count on a unified machine and where the KV cache's size is given; elsewhere only those that
        vLLM subtracts before it sizes the KV cache.
        """
        count_all = self.unified or self.fixed_kv_bytes is not None
        return sum(part.bytes_at(level) for part in self.parts if part.profiled or count_all)

    def ceiling(self) -> int:
        """Return the most bytes that weights, engine and KV cache may take together."""
        total = self.total or 0
        if self.unified:
            return min(self.requested, (self.available or total) - RESERVE)
        if self.fixed_kv_bytes:
            return total if self.available is None else self.available
        return self.requested

    def kv_bytes(self, level: Level = Level.EXPECTED) -> int:
        """Return the KV cache's size: the given one, or the rest below the ceiling."""
        if self.fixed_kv_bytes is not None:
            return self.fixed_kv_bytes
        return self.ceiling() - self.taken(level)

    @property
    def blocks(self) -> int:
        """Blocks of the KV cache."""
        return self.cache.blocks(self.kv_bytes())

    @property
    def tokens(self) -> int:
        """vLLM's "GPU KV cache size" in tokens.

        counts_by_request: newer releases count requests of full length and multiply by that length.
        """
        if self.counts_by_request:
            return int(self.concurrency * self.settings.max_model_len)
        return self.cache.tokens(self.blocks)

    @property
    def concurrency(self) -> float:
        """vLLM's "Maximum concurrency" for sequences of full length."""
        return self.cache.concurrency(
            self.blocks, self.settings.max_model_len, self.settings.tokens_in_flight
        )

    def sequences(self, length: int) -> int:
        """Return the number of sequences of `length` tokens that fit in practice."""
        return self.cache.sequences(self.blocks, length, self.settings.tokens_in_flight)

    def problem(self, level: Level = Level.EXPECTED) -> str:
        """Return the reason why vLLM would not start, or ""."""
        if self.total is None and self.fixed_kv_bytes is None:
            return ""
        if self.available is not None and self.available < self.requested:
            requested = readable_bytes(self.requested)
            return f"vLLM wants {requested} free when it starts, and {readable_bytes(self.available)} are"
        taken = self.taken(level) + (self.fixed_kv_bytes or 0)
        if self.total is not None and taken >= self.ceiling():
            takers = "weights and engine"
            if self.fixed_kv_bytes:
                takers = f"weights, engine and {readable_bytes(self.fixed_kv_bytes)} of KV cache"
            return f"{takers} take {readable_bytes(taken)} of {readable_bytes(self.ceiling())}"
        if self.bytes_per_sequence > self.kv_bytes(level):
            return (
                f"a sequence of {self.settings.max_model_len:,} tokens needs {readable_bytes(self.bytes_per_sequence)} "
                f"of KV cache, and {readable_bytes(self.kv_bytes(level))} are left"
            )
        return ""

    @property
    def verdict(self) -> Literal["fits", "doubtful", "no"]:
        """`fits`: as expected; `doubtful`: only with the least memory for the engine; `no`: not even then."""
        if not self.problem():
            return "fits"
        if not self.problem(Level.LOW):
            return "doubtful"
        return "no"

    def longest(self, limit: int) -> int:
        """Return the longest context, up to `limit`, of which one sequence fits."""
        available = max(0, self.kv_bytes() - self.null_block_bytes)
        return self.cache.longest(available, limit, self.settings.tokens_in_flight)

    def measured_kv_bytes(self) -> int | None:
        """Return a size for `--kv-cache-memory-bytes`: all sequences at full length, or as many as fit.

        Whole sequences, because all of the free memory would be another figure whenever other programs come
        and go. None when not even one fits.
        """
        fitting = min(self.settings.max_num_seqs, max(0, self.kv_bytes()) // self.bytes_per_sequence)
        if fitting == 0:
            return None
        return fitting * self.bytes_per_sequence


def memory_of(
    resolved: Resolved, *, available: int | None = None, known: HostMeasurements = NOTHING_KNOWN
) -> MemoryPlan:
    """Return the memory that `resolved` takes.

    available: bytes free on this host, for a unified machine or a GPU that others use. Raises UnknownMemoryError, and
    BadInputError where vLLM would refuse the layout.
    """
    settings = cache_settings(resolved)
    hardware = resolved.profile.hardware
    unified = hardware.memory == "unified"
    total = None
    if hardware.memory_gib is not None:
        total = int(hardware.memory_gib * GIB)
    given = _given_kv_bytes(resolved)
    utilization = resolved.serve.get("gpu-memory-utilization", 0.9)
    step = BatchShape(
        in_flight=settings.in_flight,
        max_num_seqs=settings.max_num_seqs,
        tensor_parallel=settings.tensor_parallel,
        drafter=resolved.drafter.name if resolved.drafter else None,
    )
    alike = [start for start in known.starts if start.step == step]
    return MemoryPlan(
        settings=settings,
        step=step,
        cache=cache_of(resolved, settings),
        parts=(
            *weight_parts(resolved, settings, known.weight_bytes),
            *engine_parts(resolved, hardware, alike),
        ),
        total=total,
        unified=unified,
        utilization=float(utilization) if isinstance(utilization, int | float) else 0.9,
        available=available,
        fixed_kv_bytes=given,
        counts_by_request=resolved.engine.is_at_least("0.32.0"),  # v1/core/kv_cache_utils.py:2309
        known=known,
    )


def _given_kv_bytes(resolved: Resolved) -> int | None:
    """Return the KV cache's size that an option or a variable fixes; None where vLLM measures free memory.

    Raises UnknownMemoryError where neither bounds the KV cache.
    """
    hardware = resolved.profile.hardware
    if hardware.gpu_count == 0:
        space = resolved.environment.get("VLLM_CPU_KVCACHE_SPACE", "")
        if not space:
            raise UnknownMemoryError("without VLLM_CPU_KVCACHE_SPACE vLLM takes half of the machine's memory")
        if not space.isdecimal() or len(space) > 6:
            raise UnknownMemoryError("VLLM_CPU_KVCACHE_SPACE is not a number of GiB")
        return int(space) * GIB  # v1/worker/cpu_worker.py:146
    if hardware.memory_gib is None:
        raise UnknownMemoryError(f"the memory of {hardware.gpu} is not known")
    given = resolved.serve.get("kv-cache-memory-bytes")
    return given if isinstance(given, int) else None


def with_serve(resolved: Resolved, **changes: JsonValue) -> Resolved:
    """Return the choice with other vLLM options ('_' for '-'; None removes an option)."""
    serve = dict(resolved.serve)
    for name, value in changes.items():
        serve[name.replace("_", "-")] = value
    return replace(resolved, serve={name: value for name, value in serve.items() if value is not None})
