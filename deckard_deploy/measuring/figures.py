"""What a record says at each concurrency: medians of its runs, and how far apart they lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median

from deckard_deploy.measuring.records import Acceptance, Ceiling, Record, Run


@dataclass(frozen=True)
class Spread:
    """The median of the runs, the least and the most."""

    median: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """Half of what lies between the least and the most, in medians."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


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
        """The share of the roofline; None where that is not known."""
        limit = self.ceiling.tokens_per_s if self.ceiling else None
        return self.tokens_per_s.median / limit if limit else None


def rows(record: Record) -> list[Row]:
    """A row for each concurrency, ascending."""
    ceilings = {ceiling.concurrency: ceiling for ceiling in record.ceilings}
    return [_row(record.of(number), ceilings.get(number)) for number in record.concurrencies]


def _row(runs: Sequence[Run], ceiling: Ceiling | None) -> Row:
    drafted = pooled(runs)
    return Row(
        concurrency=runs[0].concurrency,
        runs=len(runs),
        failed=sum(run.failed for run in runs),
        tokens_per_s=_over(runs, lambda run: run.tokens_per_s),
        each=_over(runs, per_request),
        ttft=_over(runs, lambda run: run.ttft.p50),
        ttft_p99=_over(runs, lambda run: run.ttft.p99),
        itl=_over(runs, lambda run: run.itl.p50),
        itl_p99=_over(runs, lambda run: run.itl.p99),
        latency=_over(runs, lambda run: run.latency.p50),
        acceptance=drafted.rate if drafted else None,
        length=drafted.length if drafted else None,
        by_position=drafted.by_position if drafted else (),
        ceiling=ceiling,
    )


def pooled(runs: Sequence[Run]) -> Acceptance | None:
    """What the drafter did in all the runs together; None when none drafted."""
    found = [run.acceptance for run in runs if run.acceptance]
    drafts = sum(each.drafts for each in found)
    if not drafts:
        return None
    # A position that a run did not reach has no acceptance there.
    positions = zip_longest(
        *([rate * each.drafts for rate in each.by_position] for each in found), fillvalue=0.0
    )
    return Acceptance.model_construct(  # not judged as one run's: sums may be more than a run has
        drafts=drafts,
        draft_tokens=sum(each.draft_tokens for each in found),
        accepted_tokens=sum(each.accepted_tokens for each in found),
        by_position=tuple(sum(accepted) / drafts for accepted in positions),
    )


def per_request(run: Run) -> float:
    """Tokens per second that the middle request of a run got."""
    return median(request.output_tokens / request.latency_s for request in run.requests)


def _over(runs: Sequence[Run], value: Callable[[Run], float]) -> Spread:
    values = [value(run) for run in runs]
    return Spread(median(values), min(values), max(values))
