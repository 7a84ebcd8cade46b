"""A record as columns of text, at most 80 wide, and the notes below them."""

from collections.abc import Iterator

from deckard_deploy.measuring.figures import Row, Spread, has_drafter, rows
from deckard_deploy.measuring.records import BenchRecord, Subject
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.system.text import wrapped

WIDTH = 80
_HEADER = ("concurrency", "tok/s", "±", "each", "TTFT", "p99", "ITL", "p99", "roof")


def cells(record: BenchRecord) -> list[tuple[str, ...]]:
    """Return a header and a line for each concurrency; times in milliseconds."""
    drafted = has_drafter(record)
    lines: list[tuple[str, ...]] = [(*_HEADER, "acc", "len") if drafted else _HEADER]
    for row in rows(record):
        line = _row_cells(row)
        if drafted:
            line += acceptance_cells(row.acceptance, row.length)
        lines.append(line)
    return lines


def _row_cells(row: Row) -> tuple[str, ...]:
    return (
        str(row.concurrency),
        format_number(row.tokens_per_s.median),
        f"{row.tokens_per_s.relative:.0%}",
        format_number(row.each.median),
        format_number(row.ttft.median),
        format_number(row.ttft_p99.median),
        format_number(row.itl.median),
        format_number(row.itl_p99.median),
        _share_text(row.reached),
    )


def acceptance_cells(acceptance: float | None, length: float | None) -> tuple[str, str]:
    """Return a drafter's acceptance in percent and its tokens per step, `-` for None."""
    rate_text = "-" if acceptance is None else f"{acceptance:.0%}"
    length_text = "-" if length is None else f"{length:.2f}"
    return rate_text, length_text


def _share_text(reached: float | None) -> str:
    if reached is None:
        return "unknown"
    return f"{reached:.0%}" if reached >= 0.1 else f"{reached:.1%}"


def format_number(value: float) -> str:
    """Return the number with three significant digits, or all digits before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def notes(record: BenchRecord) -> list[str]:
    """Return the notes of a record as lines of at most 80 columns: subject, method, failures, unknowns."""
    lines = []
    for note in _notes(record):
        lines += wrapped(note, WIDTH, "  ")
    return lines


def _notes(record: BenchRecord) -> Iterator[str]:
    yield from _subject_notes(record.subject)
    yield _method_note(record.settings, _runs_text(record))
    if record.ended:
        yield f"CUT SHORT: {record.ended}"
    if record.failed:
        sent = record.failed + sum(run.completed for run in record.runs)
        yield f"{record.failed} of {sent} requests FAILED: not counted above"
    for why in record.unknown_roofline_reasons:
        yield f"roof: unknown, {why}"


def _subject_notes(subject: Subject) -> Iterator[str]:
    profile = subject.profile or "an unknown machine"
    yield f"{subject.model} on {profile}, {subject.engine}, vLLM {subject.vllm_version}"
    drafting = subject.drafting
    if drafting:
        yield f"drafter: {drafting.method}, {drafting.model or 'no model'}, {drafting.tokens} tokens a step"


def _method_note(settings: Settings, runs_text: str) -> str:
    lengths = f"{settings.output_tokens} tokens out at most"
    if settings.workload == "random":
        lengths = f"{settings.input_tokens} tokens in, {lengths}"
    runs = f"medians of {runs_text} runs of {settings.requests} requests a stream"
    return f"{settings.workload}: {lengths}; {runs}, ± half of least to most; times in ms, `each`: tok/s of one request"


def _runs_text(record: BenchRecord) -> str:
    counts = {len(record.of(concurrency)) for concurrency in record.concurrencies}
    if len(counts) == 1:
        return str(counts.pop())
    return f"{min(counts)} to {max(counts)}"


def format_spread(spread: Spread) -> str:
    """Return the median, the least and the most as text."""
    return f"{format_number(spread.median)} ({format_number(spread.low)} to {format_number(spread.high)})"
