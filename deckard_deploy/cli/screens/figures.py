"""The figures of `top` as text: always with a unit, and `-` for a figure that the server does not have."""

import json
from dataclasses import asdict

from deckard_deploy.measuring.window import Figures
from deckard_deploy.operations.top import Sample

NOTHING = "-"


def sample_line(sample: Sample) -> str:
    """Return a sample as one line, for a log or a pipe; of replicas a line each behind that of all."""
    text = f"no answer: {sample.problem}" if sample.figures is None else _line(sample.figures)
    lines = [f"{sample.at:%H:%M:%S}  {text}"]
    for name, part in sample.of:
        text = f"no answer: {part.problem}" if part.figures is None else _line(part.figures)
        lines.append(f"  {name}  {text}")
    return "\n".join(lines)


def sample_json(sample: Sample) -> str:
    """Return a sample as one line of JSON."""
    facts = {"at": sample.at.isoformat(timespec="seconds"), **_facts(sample)}
    if sample.of:
        facts["replicas"] = {name: _facts(part) for name, part in sample.of}
    return json.dumps(facts)


def _facts(sample: Sample) -> dict[str, object]:
    return asdict(sample.figures) if sample.figures else {"problem": sample.problem}


def _line(figures: Figures) -> str:
    parts = [
        f"generation {rate(figures.generation_tok_s)}",
        f"prompt {rate(figures.prompt_tok_s)}",
        f"running {count(figures.running)}",
        f"waiting {count(figures.waiting)}",
        f"first token {seconds(figures.first_token.p50_s)} p95 {seconds(figures.first_token.p95_s)}",
        f"KV {percent(figures.kv_use)}",
        f"prefix hits {percent(figures.prefix_hits)}",
        f"preemptions {count(figures.preemptions)}",
        f"acceptance {percent(figures.acceptance_rate)}",
        f"restarts {figures.restarts}",
    ]
    return "  ".join(parts)


def rate(value: float | None) -> str:
    """Return tokens per second."""
    return NOTHING if value is None else f"{value:,.1f} tok/s"


def count(value: float | None) -> str:
    """Return a whole number."""
    return NOTHING if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Return a share of 0 to 1 in percent."""
    return NOTHING if share is None else f"{share:.0%}"


def seconds(value: float | None) -> str:
    """Return a duration, in milliseconds below one second."""
    if value is None:
        return NOTHING
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s"
