"""The engine's /metrics page, read through prometheus_client's parser, and what lies between two such pages.

Counters only grow until the engine restarts; then they begin at nought again. As in PromQL (`increase`), a counter that
is smaller than before has restarted, and all that it shows is new.
"""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TypeAlias

from deckard_deploy.errors import NetworkError
from deckard_deploy.system.http import NO_ACCESS, Access, session

TIMEOUT_S = (1.0, 5.0)  # to connect, of silence; the page is made of numbers that lie ready
CHUNK, MAX_CHUNKS = 1 << 16, 64  # bytes; 0.19.1's page is 48 kB, another server may send whatever it likes

Labels: TypeAlias = frozenset[tuple[str, str]]
Series: TypeAlias = Mapping[Labels, float]

# Names as 0.19.1 has them (v1/spec_decode/metrics.py); the parser's samples keep `_total`.
DRAFTS = "vllm:spec_decode_num_drafts_total"
DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED_TOKENS = "vllm:spec_decode_num_accepted_tokens_total"
ACCEPTED_PER_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
STARTED = "process_start_time_seconds"  # prometheus_client's own, absent with several API servers


@dataclass(frozen=True)
class Histogram:
    """Observations by upper bound: `buckets` holds (bound, observations up to it), sorted, the last bound infinite."""

    buckets: tuple[tuple[float, float], ...]
    total: float = 0.0
    """Sum of all observations, in their own unit."""

    @property
    def count(self) -> float:
        """Number of observations."""
        return self.buckets[-1][1] if self.buckets else 0.0

    @property
    def mean(self) -> float | None:
        """None when there were no observations."""
        return self.total / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """The q-quantile (0 to 1) as PromQL's `histogram_quantile` has it; None when there were no observations.

        Linear inside a bucket, the first one from 0 on. Above the last finite bound nothing is known, so that bound
        is the answer.
        """
        rank = q * self.count
        if not self.count:
            return None
        for (lower, before), (upper, until) in pairwise(((0.0, 0.0), *self.buckets)):
            if until >= rank and until > before:
                return (
                    lower
                    if math.isinf(upper)
                    else lower + (upper - lower) * (rank - before) / (until - before)
                )
        return self.buckets[-1][0]


@dataclass(frozen=True)
class Page:
    """One scraped page: every sample by its name and labels."""

    at_s: float
    """When it was scraped, on the monotonic clock, in seconds."""
    samples: Mapping[str, Series]
    types: Mapping[str, str]
    """Family name -> counter, gauge, histogram …; the parser takes `_total` off counters' families."""

    def value(self, name: str) -> float | None:
        """The sum over all series of that name; None when the page has none."""
        series = self.samples.get(name)
        return sum(series.values()) if series else None

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """The same, a sum for each value of `label`."""
        return _by_label(self.samples.get(name, {}), label)

    def increase(self, name: str, since: "Page") -> float | None:
        """What a counter grew by since an earlier page; None when this page does not have it."""
        series = self.samples.get(name)
        return sum(_increases(series, since.samples.get(name, {})).values()) if series else None

    def increase_by_label(self, name: str, label: str, since: "Page") -> dict[str, float]:
        """The same, for each value of `label`."""
        return _by_label(_increases(self.samples.get(name, {}), since.samples.get(name, {})), label)

    def rate(self, name: str, since: "Page") -> float | None:
        """Increase per second since an earlier page; None when this page does not have the counter."""
        grown, elapsed_s = self.increase(name, since), self.at_s - since.at_s
        return grown / elapsed_s if grown is not None and elapsed_s > 0 else None

    def histogram(self, name: str, since: "Page") -> Histogram | None:
        """The observations since an earlier page; None when this page has no such histogram."""
        buckets = self.increase_by_label(f"{name}_bucket", "le", since)
        if not buckets:
            return None
        return Histogram(tuple(_by_number(buckets)), self.increase(f"{name}_sum", since) or 0.0)

    def restarted(self, since: "Page") -> bool:
        """Whether the engine has restarted since an earlier page."""
        started = [page.value(STARTED) for page in (since, self)]
        if None not in started and started[0] != started[1]:
            return True
        counters = [f"{name}_total" for name, kind in self.types.items() if kind == "counter"]
        return any(_fell(self.samples.get(name, {}), since.samples.get(name, {})) for name in counters)


@dataclass(frozen=True)
class SpeculativeDecoding:
    """What the drafter did: counts, of one page or between two."""

    drafts: float
    draft_tokens: float
    accepted_tokens: float
    accepted_per_position: tuple[float, ...]
    """Accepted tokens at each position of a draft, the first position first."""

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted draft tokens of all draft tokens, 0 to 1; None without drafts."""
        return self.accepted_tokens / self.draft_tokens if self.draft_tokens else None

    @property
    def acceptance_length(self) -> float | None:
        """Mean tokens per step of the target, with the one it always adds itself; None without drafts."""
        return 1 + self.accepted_tokens / self.drafts if self.drafts else None

    @property
    def acceptance_by_position(self) -> tuple[float, ...]:
        """Accepted tokens at each position of all drafts, 0 to 1; empty without drafts."""
        return tuple(accepted / self.drafts for accepted in self.accepted_per_position) if self.drafts else ()


def speculative_decoding(page: Page, since: Page | None = None) -> SpeculativeDecoding | None:
    """The drafter's counters, since an earlier page or since the engine's start; None when nothing drafts."""
    earlier = since or Page(0.0, {}, {})
    drafts = page.increase(DRAFTS, earlier)
    if drafts is None:
        return None
    positions = page.increase_by_label(ACCEPTED_PER_POSITION, "position", earlier)
    return SpeculativeDecoding(
        drafts=drafts,
        draft_tokens=page.increase(DRAFT_TOKENS, earlier) or 0.0,
        accepted_tokens=page.increase(ACCEPTED_TOKENS, earlier) or 0.0,
        accepted_per_position=tuple(count for _, count in _by_number(positions)),
    )


def metrics_url(base_url: str) -> str:
    """The page of the server whose OpenAI endpoint is `base_url`, which ends in /v1."""
    return base_url.rstrip("/").removesuffix("/v1") + "/metrics"


def scrape(url: str, access: Access = NO_ACCESS) -> Page:
    """Fetch and read a page. Goes through no proxy. Raises NetworkError when there is none of vLLM's."""
    page = parse(_fetch(url, access), at_s=time.monotonic())
    if not any(name.startswith("vllm:") for name in page.samples):
        raise NetworkError(f"{url} has none of vLLM's metrics", hint="deckard-deploy status")
    return page


def parse(text: str, *, at_s: float = 0.0) -> Page:
    """Read a page in Prometheus's text format. Raises NetworkError when it is something else."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415  not for --help

    samples: dict[str, dict[Labels, float]] = {}
    types = {}
    try:
        for family in text_string_to_metric_families(text):
            types[family.name] = family.type
            for sample in family.samples:
                if not math.isfinite(sample.value):
                    continue  # a figure that nobody can show, or reckon with
                samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    except (ValueError, IndexError) as error:
        said = "".join(letter for letter in str(error) if letter.isprintable())  # another server's own words
        raise NetworkError(
            f"what was sent is no metrics page: {said}"[:200], hint="deckard-deploy status"
        ) from error
    return Page(at_s, samples, types)


def _fetch(url: str, access: Access) -> str:
    import requests  # noqa: PLC0415  heavy

    with session(access) as asking:
        try:
            with asking.get(url, timeout=TIMEOUT_S, allow_redirects=False, stream=True) as response:
                if response.status_code != 200:
                    raise NetworkError(
                        f"{url} answered HTTP {response.status_code}", hint="deckard-deploy status"
                    )
                body = b"".join(islice(response.iter_content(CHUNK), MAX_CHUNKS))
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {type(error).__name__}", hint="deckard-deploy status") from error
    return body.decode("utf-8", "replace")


def _increases(later: Series, earlier: Series) -> dict[Labels, float]:
    """Series by series: one that fell has restarted, one that is new began at nought."""
    grown = {labels: value - earlier.get(labels, 0.0) for labels, value in later.items()}
    return {labels: later[labels] if growth < 0 else growth for labels, growth in grown.items()}


def _fell(later: Series, earlier: Series) -> bool:
    return any(value < earlier.get(labels, 0.0) for labels, value in later.items())


def _by_label(series: Series, label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for labels, value in series.items():
        key = dict(labels).get(label)
        if key is not None:
            sums[key] = sums.get(key, 0.0) + value
    return sums


def _by_number(sums: Mapping[str, float]) -> list[tuple[float, float]]:
    """Sorted by the label's number; a label that is none is left out, as PromQL does with such buckets."""
    found = []
    for text, value in sums.items():
        with suppress(ValueError):
            found.append((float(text), value))
    return sorted(pair for pair in found if not math.isnan(pair[0]))
