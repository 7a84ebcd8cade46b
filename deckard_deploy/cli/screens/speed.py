"""How fast a plan can decode, and what its drafter must achieve: one line, JSON, or all of the reckoning."""

from typing import Any

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli.screens.layout import wrapped
from deckard_deploy.measuring.speculation import SpecRecord, recommendation_text
from deckard_deploy.planning.memory.settings import CacheSettings, UnknownMemoryError, cache_settings
from deckard_deploy.planning.roofline import (
    DraftingEstimate,
    Roofline,
    drafting_of,
    roofline_of,
    tokens_per_step,
)

WIDTH = 80
CONTEXTS = (1024, 8192)  # tokens, beside the full length
ACCEPTANCES = (0.3, 0.5, 0.7, 0.8)
# Of all drafted tokens; the least that was published: 11 to 12 % by a drafter of the model before its abliteration
# (promzeus).
LIKELY = 0.1
KS = (1, 2, 3, 4, 5)  # tokens drafted


def speed_of(resolved: Resolved) -> tuple[CacheSettings, Roofline] | str:
    """The roofline with the settings that it rests on, or why it is not known."""
    try:
        settings = cache_settings(resolved)
    except UnknownMemoryError as error:
        return str(error)
    roofline = roofline_of(resolved, settings)
    return (
        (settings, roofline) if roofline else f"the memory bandwidth of {resolved.profile.name} is not known"
    )


def speed_lines(resolved: Resolved) -> list[str]:
    """The ceiling for one sequence, and a warning where the drafter may cost more than it gives."""
    speed = speed_of(resolved)
    if isinstance(speed, str):
        return wrapped(f"speed        not known: {speed}")
    roofline = speed[1]
    ceiling = roofline.tokens_per_s(1, CONTEXTS[0])
    lines = wrapped(
        f"speed        at most {ceiling:.1f} tok/s for one sequence; {_efficiency(roofline, ceiling)}"
    )
    drafting = drafting_of(resolved)
    return lines + (_drafter_lines(resolved, drafting) if drafting else [])


def explained(resolved: Resolved) -> list[str]:
    """The formulas with their numbers, of at most 80 columns."""
    speed = speed_of(resolved)
    if isinstance(speed, str):
        return wrapped(f"speed        not known: {speed}")
    settings, roofline = speed
    drafting = drafting_of(resolved)
    return [*_decoding(settings, roofline), *(_drafting(drafting) if drafting else [])]


def speed_json(resolved: Resolved) -> dict[str, Any]:
    """What `plan --json` says of the speed; bytes, bytes per second, tokens per second."""
    speed = speed_of(resolved)
    if isinstance(speed, str):
        return {"unknown": speed}
    settings, roofline = speed
    drafting = drafting_of(resolved)
    return {
        "weight_bytes": roofline.weights,
        "bandwidth": roofline.bandwidth,
        "efficiency": roofline.efficiency.model_dump() if roofline.efficiency else None,
        "ceiling": [
            {"sequences": sequences, "context": context, "tokens_per_s": round(value, 2)}
            for sequences in _batches(settings)
            for context in _contexts(settings)
            if (value := roofline.tokens_per_s(sequences, context))
        ],
        "drafter": _drafter_json(drafting) if drafting else None,
    }


def _drafter_json(drafting: DraftingEstimate) -> dict[str, Any]:
    return {
        "tokens": drafting.tokens,
        "cost": round(drafting.cost, 4),
        "break_even_acceptance": drafting.break_even(),
        "best": [
            {
                "acceptance": a,
                "tokens": (best := drafting.best_tokens(a)),
                "speedup": round(drafting.speedup(a, best), 3),
            }
            for a in ACCEPTANCES
        ],
    }


def measured_lines(record: SpecRecord | None) -> list[str]:
    """Return what `bench spec` found with this drafter on this host, if it was run."""
    if record is None:
        return []
    return wrapped(f"measured     {recommendation_text(record)} (bench spec, {record.made_at[:10]})")


def measured_json(record: SpecRecord | None) -> dict[str, Any] | None:
    """Return the same for `plan --json`."""
    return record.model_dump(mode="json", exclude={"host", "subject"}) if record else None


def _efficiency(roofline: Roofline, ceiling: float) -> str:
    if roofline.efficiency is None:
        return "what is reached on this hardware: unknown"
    return f"about {ceiling * roofline.efficiency.value:.1f} ({roofline.efficiency.value:.0%}) were reached"


def _drafter_lines(resolved: Resolved, drafting: DraftingEstimate) -> list[str]:
    """What would have to be true for the drafter to pay, and what was measured."""
    drafter = resolved.drafter
    if drafter is None:
        return []
    even, tokens, measured = drafting.break_even(), drafting.tokens, drafter.measured_speedup
    if even is None:
        return wrapped(
            f"drafter      {drafter.name}: SLOWER THAN NONE at any acceptance with {tokens} tokens"
        )
    share = drafting.share(even)  # what /metrics and the start's own judgement are in
    verdict = "SLOWER THAN NONE unless" if share > LIKELY else "faster than none when"
    text = f"drafter      {drafter.name}: {verdict} more than {share:.0%} of its drafted tokens are accepted"
    if tokens > 1:
        text += f" (a chance of {even:.0%} for each of {tokens} in turn)"
    if measured:
        implied = drafting.share(drafting.implied_acceptance(measured.value))
        text += f"; measured: {measured.value:g}x, as if {implied:.0%} were ({measured.source})"
    return wrapped(text)


def _decoding(settings: CacheSettings, roofline: Roofline) -> list[str]:
    weights, band = roofline.weights / 1e9, roofline.bandwidth * roofline.ranks / 1e9
    per_token = {
        context: roofline.step_bytes(1, context) - roofline.weights for context in _contexts(settings)
    }
    lines = [
        "decoding     tok/s <= sequences * bandwidth / (weights + sequences * KV)",
        f"             bandwidth {band:g} GB/s, weights {weights:.2f} GB a step",
        *(
            f"             KV {size / 1e9:.3f} GB a step at {context:,} tokens"
            for context, size in per_token.items()
        ),
        "             sequences"
        + "".join(f"{context:>12,}" for context in per_token)
        + "  tokens of context",
    ]
    for sequences in _batches(settings):
        figures = "".join(f"{roofline.tokens_per_s(sequences, context):12.1f}" for context in per_token)
        lines.append(f"             {sequences:9}{figures}  tok/s in all")
    measured = roofline.efficiency
    reached = f"{measured.value:g}: {measured.source}" if measured else "unknown: nobody has published a run"
    return [*lines, *wrapped(f"efficiency   {reached}")]


def _drafting(drafting: DraftingEstimate) -> list[str]:
    cost = drafting.cost
    lines = [
        "drafting     speed-up = (1 + a + ... + a^k) / (1 + c * k)",
        f"             a: acceptance of a token, k: tokens drafted, c = {cost:.3f}: bytes of a",
        "             drafter's step over the target's; verifying is taken as free, as it",
        # docs/validation/2026-11-26-gpu-mtp.md
        "             is for one sequence (16 on an H200, k = 4, a = 1: 2.0x, not 4.2x)",
        "             k         " + "".join(f"{k:>8}" for k in KS),
        "             break-even" + "".join(_percent(drafting.break_even(k)) for k in KS),
    ]
    for a in ACCEPTANCES:
        speedups = "".join(f"{drafting.speedup(a, k):7.2f}x" for k in KS)
        best = drafting.best_tokens(a)
        lines.append(f"             a = {a:<6.2f}{speedups}  best: k = {best}")
    k = drafting.tokens
    needed = 1 + cost * k
    half = tokens_per_step(0.5, k)
    lines.append(f"             so k = {k} must yield {needed:.2f} tokens a step; a = 0.5 yields {half:.2f}")
    return lines


def _percent(share: float | None) -> str:
    return f"{'never':>8}" if share is None else f"{share:>8.0%}"


def _contexts(settings: CacheSettings) -> tuple[int, ...]:
    return (*(context for context in CONTEXTS if context < settings.max_model_len), settings.max_model_len)


def _batches(settings: CacheSettings) -> list[int]:
    return sorted({1, 4, settings.max_num_seqs} if settings.max_num_seqs >= 4 else {1, settings.max_num_seqs})
