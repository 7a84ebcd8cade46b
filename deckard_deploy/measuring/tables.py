"""A record as columns of text, at most 80 wide, and what has to be said below them."""

import textwrap
from collections.abc import Iterator

from deckard_deploy.measuring.figures import Row, Spread, rows
from deckard_deploy.measuring.records import Record

WIDTH = 80


def cells(record: Record) -> list[tuple[str, ...]]:
    """A header and a line for each concurrency; times in milliseconds."""
    found = rows(record)
    drafted = any(row.acceptance is not None for row in found)
    header = ("at once", "tok/s", "±", "each", "TTFT", "p99", "ITL", "p99", "roof")
    return [(*header, *(("acc", "len") if drafted else ())), *(_cells(row, drafted=drafted) for row in found)]


def _cells(row: Row, *, drafted: bool) -> tuple[str, ...]:
    accepted = (
        f"{row.acceptance:.0%}" if row.acceptance is not None else "-",
        f"{row.length:.2f}" if row.length is not None else "-",
    )
    return (
        str(row.concurrency),
        number(row.tokens_per_s.median),
        f"{row.tokens_per_s.relative:.0%}",
        number(row.each.median),
        *(number(spread.median) for spread in (row.ttft, row.ttft_p99, row.itl, row.itl_p99)),
        _share(row.reached),
        *(accepted if drafted else ()),
    )


def _share(reached: float | None) -> str:
    if reached is None:
        return "unknown"
    return f"{reached:.0%}" if reached >= 0.1 else f"{reached:.1%}"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def notes(record: Record) -> list[str]:
    """What was measured, how, and what the table cannot show."""
    return [line for note in _notes(record) for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]


def _notes(record: Record) -> Iterator[str]:
    subject, settings = record.subject, record.settings
    drafting = subject.drafting
    yield f"{subject.model} on {subject.profile or 'an unknown machine'}, {subject.engine}, vLLM {subject.vllm_version}"
    if drafting:
        yield f"drafter: {drafting.method}, {drafting.model or 'no model'}, {drafting.tokens} tokens a step"
    lengths = f"{settings.input_tokens} tokens in, " if settings.workload == "random" else ""
    yield (
        f"{settings.workload}: {lengths}{settings.output_tokens} tokens out at most; medians of {_counted(record)} "
        f"runs of {settings.requests} requests a stream, ± half of least to most; times in ms"
    )
    if record.ended:
        yield f"CUT SHORT: {record.ended}"
    if failed := sum(run.failed for run in record.runs):
        yield f"{failed} of {failed + sum(run.completed for run in record.runs)} requests FAILED: not counted above"
    for why in sorted({ceiling.why for ceiling in record.ceilings if ceiling.why}):
        yield f"roof: unknown, {why}"


def _counted(record: Record) -> str:
    counts = [len(record.of(number)) for number in record.concurrencies]
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def spread_text(spread: Spread) -> str:
    """Median and the outermost runs."""
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"
