"""Settings that may make a deployment faster, each as one change of it. `tune` measures them."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

from deckard_deploy.catalog import library
from deckard_deploy.catalog.listing import names
from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.resolution import Resolved

Goal: TypeAlias = Literal["interactive", "agents", "throughput"]
# Concurrent requests that a goal is measured at: one person; a few agents; a full server.
CONCURRENCY: dict[Goal, tuple[int, ...]] = {"interactive": (1,), "agents": (1, 4), "throughput": (16,)}
# Drafted tokens: 4 is the knee that github club-3090 measured, 7 the most that 0.33.0 verifies with split-KV
# (v1/attention/ops/triton_unified_attention.py:37).
_DRAFT_TOKENS = (2, 4, 7)
# 2048 is vLLM's own default on a Spark, 16384 on a B200 (docs/speed.md).
_BATCH_TOKENS = (2048, 8192, 16384)


def candidates(resolved: Resolved, goal: Goal) -> tuple[tuple[str, ...], ...]:
    """Return the settings of each candidate, as `--set` takes them; those that promise most come first.

    Whether a candidate is valid and fits into memory shows when it is planned.
    """
    found: dict[tuple[str, ...], None] = {}
    for setting in (*_drafting(resolved), *_engines(resolved), *_options(resolved, goal)):
        found[(setting,)] = None
    return tuple(found)


def _drafting(resolved: Resolved) -> Iterator[str]:
    drafter = resolved.drafter
    if drafter is None:
        methods = resolved.engine.drafter_methods
        for name in resolved.model.drafters:
            speculative = library.model(name).speculative
            if speculative and speculative.method in methods:
                yield f"drafter={name}"
        return
    now = drafter.speculative.num_speculative_tokens if drafter.speculative else None
    for tokens in _DRAFT_TOKENS:
        if tokens != now:
            yield f"drafter_tokens={tokens}"
    yield "drafter=none"


def _engines(resolved: Resolved) -> Iterator[str]:
    """Yield the other engines of the same kind, the newest first."""
    now = resolved.engine
    others = [library.engine(name) for name in names("engines") if name != now.name]
    for engine in sorted(others, key=lambda engine: engine.vllm_version, reverse=True):
        same_kind = (engine.runtime, engine.gpu) == (now.runtime, now.gpu)
        if same_kind and set(engine.architectures) & set(now.architectures):
            yield f"engine={engine.name}"


def _options(resolved: Resolved, goal: Goal) -> Iterator[str]:
    """Yield options that the release has, with values other than the present ones."""
    options = option_schema(resolved.engine.option_schema).options
    wanted: list[tuple[str, str | int]] = []
    if resolved.engine.gpu:
        wanted += [("linear-backend", "marlin"), ("attention-backend", "TRITON_ATTN")]
        wanted += [("kv-cache-dtype", "fp8")]
    if goal == "interactive":
        wanted.append(("performance-mode", "interactivity"))
    if goal == "throughput":
        wanted.append(("performance-mode", "throughput"))
    wanted += [("max-num-batched-tokens", tokens) for tokens in _BATCH_TOKENS]
    for name, value in wanted:
        if name in options and resolved.serve.get(name) != value:
            yield f"{name}={value}"
