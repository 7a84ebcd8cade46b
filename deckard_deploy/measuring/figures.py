"""The figures of a record at each concurrency: medians of its runs, and their spread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from deckard_deploy.measuring.records import Acceptance, BenchRecord, Ceiling, Run


@dataclass(frozen=True)
class Spread:
    """The median of the runs, the least and the most."""

    median: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """Half of the range, as a share of the median."""
        if not self.median:
            return 0.0
        return (self.high - self.low) / 2 / self.median


@dataclass(frozen=True, kw_only=True)
class Row:
    """One concurrency. tokens_per_s: all streams; each: one request, its wait for the first token included.

    Times in milliseconds. acceptance, length: of the drafter, None without one. by_position: 0 to 1.
    """

    concurrency: int
    runs: int
    failed: int
    tokens_per_s: Spread
    each: Spread
    ttft: Spread
    ttft_p99: Spread
    itl: Spread
    itl_p99: Spread
    latency: Spread
    acceptance: float | None
    length: float | None
    by_position: tuple[float, ...]
    ceiling: Ceiling | None

    @property
    def reached(self) -> float | None:
        """The speed as a share of the roofline; None when the roofline is unknown."""
        if self.ceiling is None or not self.ceiling.tokens_per_s:
            return None
        return self.tokens_per_s.median / self.ceiling.tokens_per_s


def rows(record: BenchRecord) -> list[Row]:
    """Return a row for each concurrency, ascending."""
    ceilings = {ceiling.concurrency: ceiling for ceiling in record.ceilings}
    return [_row(record.of(number), ceilings.get(number)) for number in record.concurrencies]


def has_drafter(record: BenchRecord) -> bool:
    """Return True if any run of the record drafted."""
    return any(run.acceptance is not None for run in record.runs)


def _row(runs: Sequence[Run], ceiling: Ceiling | None) -> Row:
    draft = draft_figures(runs)
    return Row(
        concurrency=runs[0].concurrency,
        runs=len(runs),
        failed=sum(run.failed for run in runs),
        tokens_per_s=_spread(runs, lambda run: run.tokens_per_s),
        each=_spread(runs, per_request),
        ttft=_spread(runs, lambda run: run.ttft.p50),
        ttft_p99=_spread(runs, lambda run: run.ttft.p99),
        itl=_spread(runs, lambda run: run.itl.p50),
        itl_p99=_spread(runs, lambda run: run.itl.p99),
        latency=_spread(runs, lambda run: run.latency.p50),
        acceptance=draft.acceptance,
        length=draft.length,
        by_position=draft.by_position,
        ceiling=ceiling,
    )


class DraftFigures(NamedTuple):
    """The figures of a drafter, or None and no positions without one. by_position: 0 to 1."""

    acceptance: float | None
    length: float | None
    by_position: tuple[float, ...]


def draft_figures(runs: Sequence[Run]) -> DraftFigures:
    """Return the drafter's figures over all runs together."""
    acceptance = pooled_acceptance(runs)
    if acceptance is None:
        return DraftFigures(None, None, ())
    return DraftFigures(acceptance.rate, acceptance.length, acceptance.by_position)


def pooled_acceptance(runs: Sequence[Run]) -> Acceptance | None:
    """Return the acceptance over all runs together; None when no run drafted."""
    drafts = draft_tokens = accepted_tokens = 0
    accepted_by_position: list[float] = []
    for run in runs:
        acceptance = run.acceptance
        if acceptance is None:
            continue
        drafts += acceptance.drafts
        draft_tokens += acceptance.draft_tokens
        accepted_tokens += acceptance.accepted_tokens
        # A position that a run did not reach has no acceptance there.
        missing = len(acceptance.by_position) - len(accepted_by_position)
        accepted_by_position += [0.0] * missing
        for position, rate in enumerate(acceptance.by_position):
            accepted_by_position[position] += rate * acceptance.drafts
    if not drafts:
        return None
    return Acceptance.model_construct(  # not validated: the sums may exceed the bounds of one run
        drafts=drafts,
        draft_tokens=draft_tokens,
        accepted_tokens=accepted_tokens,
        by_position=tuple(accepted / drafts for accepted in accepted_by_position),
    )


def per_request(run: Run) -> float:
    """Return the speed of the median request of a run, in tokens per second."""
    return median(request.output_tokens / request.latency_s for request in run.requests)


def _spread(runs: Sequence[Run], value: Callable[[Run], float]) -> Spread:
    values = [value(run) for run in runs]
    return Spread(median(values), min(values), max(values))
