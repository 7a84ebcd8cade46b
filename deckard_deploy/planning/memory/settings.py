"""The numbers that decide the KV cache, computed from a resolved choice as vLLM 0.19.1 does from its options.

Paths here are below vllm/ of that release.
"""

from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Architecture, Hardware, Serve
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.kv_cache import KvCache, LayerKv, kv_cache

GIB = 2**30
# Options that change the layout in ways that this module does not compute.
_UNSUPPORTED_OPTIONS = (
    "pipeline-parallel-size",
    "decode-context-parallel-size",
    "prefill-context-parallel-size",
    "kv-cache-dtype-skip-layers",
    "kv-transfer-config",
    "kv-events-config",
    "num-gpu-blocks-override",
    "speculative-config",
)


class UnknownMemoryError(Exception):
    """A number that decides the memory is not known; the text names it."""


class CacheSettings(NamedTuple):
    """The settings that, with the architecture, decide the KV cache.

    in_flight: tokens computed in one step. steps: scheduled steps of which none is settled yet. data_parallel:
    ranks that have each such a cache.
    """

    max_model_len: int
    max_num_seqs: int
    in_flight: int
    block_size: int
    element_bytes: int
    tensor_parallel: int
    hybrid: bool
    steps: int = 1
    data_parallel: int = 1

    @property
    def tokens_in_flight(self) -> int:
        """Tokens in tokens_in_flight steps: no block before them is free yet."""
        return self.in_flight * self.steps


def cache_settings(resolved: Resolved) -> CacheSettings:
    """Return the settings that vLLM's API server would choose.

    Raises UnknownMemoryError, and BadInputError where vLLM would refuse them.
    """
    serve = resolved.serve
    hardware = resolved.profile.hardware
    for name in _UNSUPPORTED_OPTIONS:
        if serve.get(name) not in (None, 1):
            raise UnknownMemoryError(f"the KV cache is not computed with --{name}")
    if serve.get("cpu-offload-gb"):
        raise UnknownMemoryError("how much of the weights stays here is not computed with --cpu-offload-gb")
    ranks = _int_option(serve, "tensor-parallel-size", 1)
    if resolved.model.architecture.layers == 0:
        raise UnknownMemoryError(f"memory is not computed for the architecture of {resolved.model.name}")
    length = serve.get("max-model-len", resolved.model.context_limit)
    if not isinstance(length, int) or length < 1:
        raise UnknownMemoryError(f"--max-model-len {length} leaves the length to vLLM")
    sequences, in_flight = _batch_limits(resolved, length, ranks)
    _check_batch(serve, sequences, in_flight, length)
    # CPU: platforms/cpu.py:156. GPU: config/cache.py DEFAULT_BLOCK_SIZE and platforms/interface.py:427.
    default_block_size = 128 if _on_cpu(hardware) else 16
    return CacheSettings(
        max_model_len=length,
        max_num_seqs=sequences,
        in_flight=in_flight,
        block_size=_int_option(serve, "block-size", default_block_size),
        element_bytes=_element_bytes(serve, hardware),
        tensor_parallel=ranks,
        hybrid=serve.get("disable-hybrid-kv-cache-manager") is not True,
        steps=_unsettled_steps(resolved),
        data_parallel=_int_option(serve, "data-parallel-size", 1),
    )


def _unsettled_steps(resolved: Resolved) -> int:
    """Return the number of steps that hold blocks at once.

    0.32.0 schedules a step before the last one is settled, and counts blocks for both (config/vllm.py:577,
    :1585). It does not with ngram, whose drafts need the tokens of the last step, nor on a CPU
    (platforms/cpu.py:331).
    """
    if not resolved.engine.is_at_least("0.32.0") or _on_cpu(resolved.profile.hardware):
        return 1
    if resolved.serve.get("async-scheduling") is False or _drafting_method(resolved) == "ngram":
        return 1
    return 2


def _drafting_method(resolved: Resolved) -> str | None:
    if resolved.drafter is None or resolved.drafter.speculative is None:
        return None
    return resolved.drafter.speculative.method


def cache_of(resolved: Resolved, settings: CacheSettings) -> KvCache:
    """Return the KV cache of the target and its drafter on each GPU.

    Raises UnknownMemoryError for a drafter whose cache is not computed, BadInputError where vLLM would refuse
    the layout.
    """
    drafter = resolved.drafter
    layers = layers_of(resolved.model.architecture, settings)
    if drafter:
        if _drafting_method(resolved) in ("dflash", "eagle3"):
            raise UnknownMemoryError(f"the KV cache of {drafter.name} is not computed")
        # No layers for ngram and MTP: MTP reads the target's cache (0.32.0, v1/spec_decode/gemma4.py).
        layers += layers_of(drafter.architecture, settings)
    return kv_cache(layers, hybrid=settings.hybrid)


def layers_of(architecture: Architecture, settings: CacheSettings) -> list[LayerKv]:
    """Return the layers that own a KV cache, in order; a drafter has as many ranks as its target.

    The last `kv_shared_layers` reuse the cache of another layer (model_executor/models/gemma4.py). Full
    attention closes each period of the pattern, as in every Gemma 4: five sliding layers, one full.
    """
    owning = architecture.layers - architecture.kv_shared_layers
    full_layers = architecture.layers - architecture.sliding_layers
    period = architecture.layers // full_layers if full_layers else architecture.layers + 1
    return [_layer(architecture, settings, full=number % period == 0) for number in range(1, owning + 1)]


def _layer(architecture: Architecture, settings: CacheSettings, *, full: bool) -> LayerKv:
    if full:
        heads, head_size, window = architecture.global_kv_heads, architecture.global_head_dim, None
    else:
        heads, head_size, window = architecture.kv_heads, architecture.head_dim, architecture.sliding_window
    return LayerKv(
        # Every rank has at least one head (config/model.py:1217).
        heads=max(1, heads // settings.tensor_parallel),
        head_size=head_size,
        element_bytes=settings.element_bytes,
        block_size=settings.block_size,
        window=window,
    )


def _batch_limits(resolved: Resolved, length: int, ranks: int) -> tuple[int, int]:
    """Return the API server's max-num-seqs and max-num-batched-tokens (engine/arg_utils.py:2024, :2180)."""
    serve = resolved.serve
    tokens, sequences = _default_batch_limits(resolved, ranks)
    factor = 2 if serve.get("performance-mode") == "throughput" else 1
    sequences = _int_option(serve, "max-num-seqs", sequences * factor)
    given = serve.get("max-num-batched-tokens")
    if isinstance(given, int):
        tokens = given
    else:
        tokens *= factor
        if serve.get("enable-chunked-prefill") is False:
            tokens = max(length, tokens)
        tokens = min(sequences * length, tokens)
    if "max-num-seqs" not in serve:
        sequences = min(sequences, tokens)
    return sequences, tokens


def _default_batch_limits(resolved: Resolved, ranks: int) -> tuple[int, int]:
    """Return vLLM's default tokens and sequences of one step on this hardware.

    Raises UnknownMemoryError when they depend on a memory size that the profile does not have.
    """
    hardware = resolved.profile.hardware
    if _on_cpu(hardware):
        return 2048 * ranks, 128 * ranks
    if hardware.memory_gib is None:
        tokens = _int_option(resolved.serve, "max-num-batched-tokens", 0)
        sequences = _int_option(resolved.serve, "max-num-seqs", 0)
        if not tokens or not sequences:
            raise UnknownMemoryError(
                "vLLM's batch depends on the GPU's memory, which the profile does not know"
            )
        return tokens, sequences
    newer = resolved.engine.is_at_least("0.32.0")
    if hardware.memory_gib >= 160 and newer:
        return 16384, 1024  # 0.32.0, engine/arg_utils.py:2923
    # 0.33.0, engine/arg_utils.py:2963: a GB10 has the memory of a large GPU, not its compute; 0.32.0 leaves it out too.
    if hardware.memory_gib >= 70 and not (newer and hardware.compute_capability == "12.1"):
        return 8192, 1024
    return 2048, 256


def _check_batch(serve: Serve, sequences: int, in_flight: int, length: int) -> None:
    """Raise BadInputError for batch limits that vLLM refuses (config/scheduler.py:259)."""
    step = f"max-num-batched-tokens is {in_flight}, less than"
    if in_flight < sequences:
        raise BadInputError(
            f"{step} max-num-seqs {sequences}: vLLM refuses that",
            hint=f"--set max-num-seqs={in_flight}, or less",
        )
    if in_flight < length and serve.get("enable-chunked-prefill") is False:
        raise BadInputError(
            f"{step} max-model-len {length}: without chunked prefill vLLM refuses that",
            hint="--set enable-chunked-prefill=null",
        )


def _element_bytes(serve: Serve, hardware: Hardware) -> int:
    """Return the bytes of one element of a key or value: `auto` is the model's dtype (utils/torch_utils.py).

    Raises UnknownMemoryError for other attention kinds, and for caches that store scales.
    """
    kind = serve.get("kv-cache-dtype", "auto")
    if kind in ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc"):
        return 2 if _on_cpu(hardware) else 1  # a CPU falls back to auto (platforms/cpu.py:180)
    if kind not in ("auto", "bfloat16", "float16"):
        # 0.32.0, v1/kv_cache_interface.py, KVQuantMode.
        raise UnknownMemoryError(f"the KV cache is not computed with --kv-cache-dtype {kind}")
    if kind == "auto" and serve.get("dtype") in ("float32", "float"):
        return 4
    return 2


def _on_cpu(hardware: Hardware) -> bool:
    return hardware.gpu_count == 0


def _int_option(serve: Serve, name: str, default: int) -> int:
    value = serve.get(name, default)
    return value if isinstance(value, int) else default
