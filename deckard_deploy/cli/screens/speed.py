"""The decoding speed of a plan and the acceptance that its drafter needs, as text, JSON and formulas."""

from typing import TYPE_CHECKING, Any

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import ModelSpec
from deckard_deploy.cli.screens.layout import wrapped
from deckard_deploy.planning.memory.settings import CacheSettings, UnknownMemoryError, cache_settings
from deckard_deploy.planning.roofline import (
    DraftingEstimate,
    Roofline,
    drafting_of,
    kv_bytes_read,
    roofline_of,
    tokens_per_step,
    used_experts,
)
from deckard_deploy.system.unknown import Unknown

if TYPE_CHECKING:
    from deckard_deploy.measuring.speculation import SpecRecord

CONTEXTS = (1024, 8192)  # tokens, in addition to the full length
ACCEPTANCES = (0.3, 0.5, 0.7, 0.8)
# Of all drafted tokens; the lowest published: 11 to 12 % by a drafter of the model before its abliteration
# (promzeus).
LIKELY = 0.1
KS = (1, 2, 3, 4, 5)  # tokens drafted


def speed_of(resolved: Resolved) -> tuple[CacheSettings, Roofline] | Unknown:
    """Return the roofline with the settings that it is calculated from."""
    try:
        settings = cache_settings(resolved)
    except UnknownMemoryError as error:
        return Unknown(str(error))
    roofline = roofline_of(resolved, settings)
    if roofline is None:
        return Unknown(f"the memory bandwidth of {resolved.profile.name} is not known")
    return settings, roofline


def speed_lines(resolved: Resolved) -> list[str]:
    """Return the ceiling for one sequence, and a warning if the drafter may cost more than it gains."""
    speed = speed_of(resolved)
    if isinstance(speed, Unknown):
        return wrapped(f"speed        not known: {speed}")
    _, roofline = speed
    ceiling = roofline.tokens_per_s(1, CONTEXTS[0])
    reached = _reached_speed(roofline, ceiling)
    lines = wrapped(f"speed        at most {_rate(ceiling)} tok/s for one sequence; {reached}")
    drafting = drafting_of(resolved)
    if drafting and resolved.drafter:
        lines += _drafter_lines(resolved.drafter, drafting)
    return lines


def explained(resolved: Resolved) -> list[str]:
    """Return the formulas with their numbers, as lines of at most 80 columns."""
    speed = speed_of(resolved)
    if isinstance(speed, Unknown):
        return wrapped(f"speed        not known: {speed}")
    settings, roofline = speed
    lines = _explained_decoding(settings, roofline)
    drafting = drafting_of(resolved)
    if drafting:
        lines += _explained_drafting(drafting)
    return lines


def speed_json(resolved: Resolved) -> dict[str, Any]:
    """Return the speed for `plan --json`; bytes, bytes per second, tokens per second."""
    speed = speed_of(resolved)
    if isinstance(speed, Unknown):
        return {"unknown": speed.reason}
    settings, roofline = speed
    drafting = drafting_of(resolved)
    return {
        "weight_bytes": roofline.weights,
        "bandwidth": roofline.bandwidth,
        "efficiency": roofline.efficiency.model_dump() if roofline.efficiency else None,
        "ceiling": _ceiling_json(settings, roofline),
        "drafter": _drafter_json(drafting) if drafting else None,
    }


def _ceiling_json(settings: CacheSettings, roofline: Roofline) -> list[dict[str, Any]]:
    rows = []
    for sequences in _batches(settings):
        for context in _contexts(settings):
            speed = roofline.tokens_per_s(sequences, context)
            if speed:
                row = {"sequences": sequences, "context": context, "tokens_per_s": round(speed, 2)}
                rows.append(row)
    return rows


def _drafter_json(drafting: DraftingEstimate) -> dict[str, Any]:
    best = []
    for acceptance in ACCEPTANCES:
        tokens = drafting.best_tokens(acceptance)
        speedup = round(drafting.speedup(acceptance, tokens), 3)
        best.append({"acceptance": acceptance, "tokens": tokens, "speedup": speedup})
    return {
        "tokens": drafting.tokens,
        "cost": round(drafting.cost, 4),
        "break_even_acceptance": drafting.break_even(),
        "best": best,
    }


def measured_lines(record: "SpecRecord | None") -> list[str]:
    """Return the result of `bench spec` with this drafter on this host, if there is a record of it."""
    if record is None:
        return []
    return wrapped(f"measured     {record.recommendation_text()} (bench spec, {record.made_at[:10]})")


def measured_json(record: "SpecRecord | None") -> dict[str, Any] | None:
    """Return the result of `bench spec` for `plan --json`, if there is a record of it."""
    if record is None:
        return None
    return record.model_dump(mode="json", exclude={"host", "subject"})


def _reached_speed(roofline: Roofline, ceiling: float) -> str:
    if roofline.efficiency is None:
        return "no published run on this hardware"
    share = roofline.efficiency.value
    return f"published runs reach about {_rate(ceiling * share)} ({share:.0%})"


def _rate(tokens_per_s: float) -> str:
    """Return tokens per second; from 1,000 on without decimals, which are not known."""
    return f"{tokens_per_s:,.1f}" if tokens_per_s < 1000 else f"{tokens_per_s:,.0f}"


def _drafter_lines(drafter: ModelSpec, drafting: DraftingEstimate) -> list[str]:
    """Return the acceptance above which the drafter pays, and the measured one."""
    even, tokens = drafting.break_even(), drafting.tokens
    if even is None:
        return wrapped(
            f"drafter      {drafter.name}: SLOWER THAN NONE at any acceptance with {tokens} tokens"
        )
    share = drafting.share(even)  # of all drafted tokens, as in /metrics and in the judgement at a start
    verdict = "SLOWER THAN NONE unless" if share > LIKELY else "faster than none when"
    text = f"drafter      {drafter.name}: {verdict} more than {share:.0%} of its drafted tokens are accepted"
    if tokens > 1:
        text += f" (a chance of {even:.0%} for each of {tokens} in turn)"
    measured = drafter.measured_speedup
    if measured:
        implied = drafting.share(drafting.implied_acceptance(measured.value))
        text += f"; measured: {measured.value:g}x, as if {implied:.0%} were ({measured.source})"
    return wrapped(text)


def _explained_decoding(settings: CacheSettings, roofline: Roofline) -> list[str]:
    weights_gb = roofline.weights / 1e9
    bandwidth_gb_s = roofline.bandwidth * roofline.ranks / 1e9
    contexts = _contexts(settings)
    lines = [
        "decoding     tok/s <= sequences * bandwidth / (weights + sequences * KV)",
        f"             bandwidth {bandwidth_gb_s:g} GB/s, weights {weights_gb:.2f} GB a step",
    ]
    if roofline.experts:
        one = used_experts(roofline.architecture, 1)
        lines.append(
            f"             and {one:.1%} of {roofline.experts / 1e9:.2f} GB of experts for one sequence"
        )
    for context in contexts:
        kv_gb = kv_bytes_read(roofline.architecture, roofline.element_bytes, context) / 1e9
        lines.append(f"             KV {kv_gb:.3f} GB a step at {context:,} tokens")
    head = "".join(f"{context:>12,}" for context in contexts)
    lines.append(f"             sequences{head}  tokens of context")
    for sequences in _batches(settings):
        figures = "".join(f"{roofline.tokens_per_s(sequences, context):12.1f}" for context in contexts)
        lines.append(f"             {sequences:9}{figures}  tok/s in all")
    measured = roofline.efficiency
    reached = f"{measured.value:g}: {measured.source}" if measured else "unknown: no published run"
    return lines + wrapped(f"efficiency   {reached}")


def _explained_drafting(drafting: DraftingEstimate) -> list[str]:
    lines = [
        "drafting     speed-up = (1 + a + ... + a^k) / (1 + c * k)",
        f"             a: acceptance of a token, k: tokens drafted, c = {drafting.cost:.3f}: bytes of a",
        "             drafter's step over the target's; verifying is taken as free, as it",
        # docs/validation/2026-11-26-gpu-mtp.md
        "             is for one sequence (16 on an H200, k = 4, a = 1: 2.0x, not 4.2x)",
        "             k         " + "".join(f"{k:>8}" for k in KS),
        "             break-even" + "".join(_percent(drafting.break_even(k)) for k in KS),
    ]
    for acceptance in ACCEPTANCES:
        speedups = "".join(f"{drafting.speedup(acceptance, k):7.2f}x" for k in KS)
        best = drafting.best_tokens(acceptance)
        lines.append(f"             a = {acceptance:<6.2f}{speedups}  best: k = {best}")
    k = drafting.tokens
    needed = 1 + drafting.cost * k
    half = tokens_per_step(0.5, k)
    lines.append(f"             so k = {k} must yield {needed:.2f} tokens a step; a = 0.5 yields {half:.2f}")
    return lines


def _percent(share: float | None) -> str:
    if share is None:
        return f"{'never':>8}"
    return f"{share:>8.0%}"


def _contexts(settings: CacheSettings) -> tuple[int, ...]:
    shorter = [context for context in CONTEXTS if context < settings.max_model_len]
    return (*shorter, settings.max_model_len)


def _batches(settings: CacheSettings) -> list[int]:
    batches = {1, settings.max_num_seqs}
    if settings.max_num_seqs >= 4:
        batches.add(4)
    return sorted(batches)
