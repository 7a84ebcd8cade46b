"""From a resolved choice to the numbers that the KV cache follows from: what vLLM 0.19.1 makes of its options.

Paths in here are below vllm/ of that release.
"""

from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Architecture, Hardware, Serve
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.memory.kv_cache import KvCache, LayerKv, kv_cache

GIB = 2**30
# What changes the layout in ways that are not computed here.
_UNPLANNED = (
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
    """A number that the memory follows from is not known; the text says which."""


class CacheSettings(NamedTuple):
    """What decides about the KV cache beside the architecture.

    in_flight: tokens computed in one step. steps: those that may be under way before one is settled.
    """

    max_model_len: int
    max_num_seqs: int
    in_flight: int
    block_size: int
    element_bytes: int
    tensor_parallel: int
    hybrid: bool
    steps: int = 1

    @property
    def unsettled(self) -> int:
        """Tokens that are being computed, so that no block before them is free yet."""
        return self.in_flight * self.steps


def cache_settings(resolved: Resolved) -> CacheSettings:
    """The settings that vLLM's API server would choose. Raises UnknownMemoryError, BadInputError where it refuses."""
    serve, hardware = resolved.serve, resolved.profile.hardware
    for name in _UNPLANNED:
        if serve.get(name) not in (None, 1):
            raise UnknownMemoryError(f"the KV cache is not computed with --{name}")
    if serve.get("cpu-offload-gb"):
        raise UnknownMemoryError("how much of the weights stays here is not computed with --cpu-offload-gb")
    ranks = _whole(serve, "tensor-parallel-size", 1)
    length = serve.get("max-model-len", resolved.model.context_limit)
    if not isinstance(length, int) or length < 1:
        raise UnknownMemoryError(f"--max-model-len {length} leaves the length to vLLM")
    sequences, in_flight = _batch(resolved, length, ranks)
    _check_batch(serve, sequences, in_flight, length)
    return CacheSettings(
        max_model_len=length,
        max_num_seqs=sequences,
        in_flight=in_flight,
        # platforms/cpu.py:156 on a CPU; config/cache.py DEFAULT_BLOCK_SIZE and platforms/interface.py:427 elsewhere
        block_size=_whole(serve, "block-size", 128 if _on_cpu(hardware) else 16),
        element_bytes=_element_bytes(serve, hardware),
        tensor_parallel=ranks,
        hybrid=serve.get("disable-hybrid-kv-cache-manager") is not True,
        steps=_steps(resolved),
    )


def _steps(resolved: Resolved) -> int:
    """0.32.0 schedules a step before the last one is settled, and counts blocks for both (config/vllm.py:577, :1585).

    Not with ngram, whose drafts need the last step's tokens, nor on a CPU (platforms/cpu.py:331).
    """
    drafter = resolved.drafter
    ngram = drafter is not None and drafter.speculative is not None and drafter.speculative.method == "ngram"
    waits = ngram or resolved.serve.get("async-scheduling") is False or _on_cpu(resolved.profile.hardware)
    return 1 if waits or resolved.engine.vllm_version == "0.19.1" else 2


def cache_of(resolved: Resolved, settings: CacheSettings) -> KvCache:
    """The KV cache of the target and its drafter on each GPU. Raises BadInputError where vLLM would refuse it."""
    drafter = resolved.drafter
    method = drafter.speculative.method if drafter and drafter.speculative else None
    if drafter and method in ("dflash", "eagle3"):
        raise UnknownMemoryError(f"the KV cache of {drafter.name} is not computed")
    # MTP reads the target's cache (vLLM 0.32.0, v1/spec_decode/gemma4.py), ngram has none: both have no layers here.
    models = [resolved.model, *([drafter] if drafter else [])]
    layers = [layer for model in models for layer in layers_of(model.architecture, settings)]
    return kv_cache(layers, hybrid=settings.hybrid)


def layers_of(architecture: Architecture, settings: CacheSettings) -> list[LayerKv]:
    """The layers that own a KV cache, in order; a drafter has as many ranks as its target.

    The last `kv_shared_layers` reuse another layer's (model_executor/models/gemma4.py). Full attention closes each
    period of the pattern, as in every Gemma 4: five sliding layers, one full.
    """
    owning = architecture.layers - architecture.kv_shared_layers
    full_layers = architecture.layers - architecture.sliding_layers
    period = architecture.layers // full_layers if full_layers else architecture.layers + 1
    return [_layer(architecture, settings, full=(number + 1) % period == 0) for number in range(owning)]


def _layer(architecture: Architecture, settings: CacheSettings, *, full: bool) -> LayerKv:
    heads = architecture.global_kv_heads if full else architecture.kv_heads
    return LayerKv(
        # A head at least on every rank (config/model.py:1217)
        heads=max(1, heads // settings.tensor_parallel),
        head_size=architecture.global_head_dim if full else architecture.head_dim,
        element_bytes=settings.element_bytes,
        block_size=settings.block_size,
        window=None if full else architecture.sliding_window,
    )


def _batch(resolved: Resolved, length: int, ranks: int) -> tuple[int, int]:
    """Sequences and tokens of one step (engine/arg_utils.py:2024 and :2180, usage context of the API server)."""
    serve, hardware = resolved.serve, resolved.profile.hardware
    if _on_cpu(hardware):
        tokens, sequences = 2048 * ranks, 128 * ranks
    elif hardware.memory_gib is None:
        tokens, sequences = _whole(serve, "max-num-batched-tokens", 0), _whole(serve, "max-num-seqs", 0)
        if not tokens or not sequences:
            raise UnknownMemoryError(
                "vLLM's batch depends on the GPU's memory, which the profile does not know"
            )
    elif hardware.memory_gib >= 160 and resolved.engine.vllm_version != "0.19.1":
        tokens, sequences = 16384, 1024  # 0.32.0, engine/arg_utils.py:2923
    else:
        tokens, sequences = (8192, 1024) if hardware.memory_gib >= 70 else (2048, 256)
    factor = 2 if serve.get("performance-mode") == "throughput" else 1
    given = serve.get("max-num-batched-tokens")
    sequences = _whole(serve, "max-num-seqs", sequences * factor)
    if isinstance(given, int):
        return min(sequences, given) if "max-num-seqs" not in serve else sequences, given
    tokens *= factor
    if serve.get("enable-chunked-prefill") is False:
        tokens = max(length, tokens)
    tokens = min(sequences * length, tokens)
    return sequences if "max-num-seqs" in serve else min(sequences, tokens), tokens


def _check_batch(serve: Serve, sequences: int, in_flight: int, length: int) -> None:
    """Raise BadInputError for a step that vLLM refuses (config/scheduler.py:259)."""
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
    """Bytes of a key's or value's element: `auto` is the model's dtype (utils/torch_utils.py)."""
    kind = serve.get("kv-cache-dtype", "auto")
    if kind in ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc"):
        return 2 if _on_cpu(hardware) else 1  # a CPU falls back to auto (platforms/cpu.py:180)
    if kind not in ("auto", "bfloat16", "float16"):
        # Another kind of attention's, or with scales in the cache (0.32.0, v1/kv_cache_interface.py, KVQuantMode).
        raise UnknownMemoryError(f"the KV cache is not computed with --kv-cache-dtype {kind}")
    return 4 if serve.get("dtype") in ("float32", "float") and kind == "auto" else 2


def _on_cpu(hardware: Hardware) -> bool:
    return hardware.gpu_count == 0


def _whole(serve: Serve, name: str, default: int) -> int:
    value = serve.get(name, default)
    return value if isinstance(value, int) else default
