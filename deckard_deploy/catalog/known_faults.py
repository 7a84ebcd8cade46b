"""Combinations that a vLLM release gets wrong, although its parser accepts them."""

from typing import NamedTuple

from deckard_deploy.catalog.specs import (
    EngineSpec,
    Environment,
    HardwareProfile,
    ModelSpec,
    Serve,
    task_of,
)
from deckard_deploy.errors import BadInputError

# Of 0.29.0, in which this kernel comes before the one that computes in FP4: on a GB10 decoding was 17 to 24 % slower
# under load (vllm-project/vllm issue 55397; pull requests 53014 and 55170).
_SLOW_KERNEL = "FlashInferCuteDslNvFp4W4A16LinearKernel"
# Drafters with a KV cache and positions of their own. MTP reads the target's.
_OWN_POSITIONS = ("dflash", "eagle3")


class Parts(NamedTuple):
    """What a choice is made of, after all settings were merged."""

    profile: HardwareProfile
    model: ModelSpec
    drafter: ModelSpec | None
    engine: EngineSpec
    serve: Serve
    environment: Environment


def refuse_known_faults(parts: Parts) -> tuple[str, ...]:
    """Return notes on what may go wrong. Raises BadInputError for what is known to."""
    _refuse_nvfp4_cache(parts)
    _refuse_slow_kernel(parts)
    _refuse_open_embeddings(parts)
    notes = (_long_requests(parts), _expandable_segments(parts))
    return tuple(note for note in notes if note)


def _is_sm12x(profile: HardwareProfile) -> bool:
    return (profile.hardware.compute_capability or "").startswith("12.")


def _refuse_nvfp4_cache(parts: Parts) -> None:
    """Raise BadInputError for a KV cache in NVFP4 on a Spark or an RTX.

    Gemma 4 answered garbage with it on an RTX 5090 and on a GB10 (vllm-project/vllm pull request 46329, open in
    September 2026). 0.33.0 does not have its two passes for head size 512 (v1/attention/backends/flashinfer.py).
    """
    chosen = str(parts.serve.get("kv-cache-dtype", ""))
    if chosen.startswith("nvfp4") and _is_sm12x(parts.profile):
        capability = parts.profile.hardware.compute_capability
        raise BadInputError(
            f"--kv-cache-dtype {chosen} on compute capability {capability}: Gemma 4 answers garbage "
            "(vllm-project/vllm pull request 46329)",
            hint="--set kv-cache-dtype=fp8",
        )


def _refuse_slow_kernel(parts: Parts) -> None:
    """Raise BadInputError where 0.29.0 would take the wrong kernel for NVFP4 weights."""
    engine = parts.engine
    if not engine.is_at_least("0.29.0") or engine.is_at_least("0.30.0"):
        return
    if not (_is_sm12x(parts.profile) and parts.model.quantization.startswith("nvfp4")):
        return
    if _SLOW_KERNEL not in parts.environment.get("VLLM_DISABLED_KERNELS", "").split(","):
        raise BadInputError(
            f"{engine.name}: vLLM {engine.vllm_version} takes a slow kernel for NVFP4 on this GPU "
            "(vllm-project/vllm issue 55397)",
            hint=f"--set environment.VLLM_DISABLED_KERNELS={_SLOW_KERNEL}, or vLLM 0.30.0 or later",
        )


def _refuse_open_embeddings(parts: Parts) -> None:
    """Raise BadInputError for an endpoint of vectors on a release that is open to CVE-2026-93592, of negative ids."""
    task = task_of(parts.serve.get("runner"), parts.serve.get("convert"))
    if task != "generate" and not parts.engine.is_at_least("0.28.0"):
        raise BadInputError(
            f"{parts.engine.name}: the route of embeddings of vLLM {parts.engine.vllm_version} is open to "
            "CVE-2026-93592",
            hint="--engine NAME with 0.28.0 or later: deckard-deploy engines list",
        )


def _long_requests(parts: Parts) -> str:
    """Return a note if a request may be longer than the drafter's own context. Raises BadInputError if it is known.

    From 0.29.0 to 0.32.0 such a request ends the engine with an illegal memory access (vllm-project/vllm issue 57941).
    0.33.0 raises the drafter's limit to the target's (config/speculative.py:1807).
    """
    drafter, engine = parts.drafter, parts.engine
    if drafter is None or drafter.speculative is None or drafter.speculative.method not in _OWN_POSITIONS:
        return ""
    if not engine.is_at_least("0.29.0") or engine.is_at_least("0.33.0"):
        return ""
    if drafter.context_limit is None:
        return (
            f"a request longer than the context of {drafter.name}, which is not known, ends vLLM {engine.vllm_version} "
            "(vllm-project/vllm issue 57941); 0.33.0 is not concerned"
        )
    length = parts.serve.get("max-model-len", parts.model.context_limit)
    if isinstance(length, int) and length > drafter.context_limit:
        raise BadInputError(
            f"--max-model-len {length} is more than the {drafter.context_limit} tokens of {drafter.name}: a longer "
            f"request would end vLLM {engine.vllm_version} (vllm-project/vllm issue 57941)",
            hint=f"--set max-model-len={drafter.context_limit}, or vLLM 0.33.0 or later",
        )
    return ""


def _expandable_segments(parts: Parts) -> str:
    """Return a note if PyTorch's expandable segments are on, on a machine with unified memory."""
    if parts.profile.hardware.memory != "unified":
        return ""
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if "expandable_segments:True" in parts.environment.get(name, ""):
            return (
                f"environment.{name}: with expandable segments the driver of a Spark ran out of memory while an engine "
                "was loading, and a long prefill reset the host (github NVIDIA/dgx-spark-playbooks issue 97)"
            )
    return ""
