"""The engine's /metrics page, read by prometheus_client's parser, and the increase between two pages.

Counters only grow until the engine restarts, and then begin at zero. As in PromQL (`increase`), a counter
that is smaller than before has restarted, and its whole value is new.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TypeAlias

import requests
from prometheus_client.parser import text_string_to_metric_families

from deckard_deploy.errors import NetworkError
from deckard_deploy.system.http import ANONYMOUS, EndpointCredentials, session

TIMEOUT_S = (1.0, 5.0)  # to connect, between two bytes; the server has the numbers at hand
CHUNK, MAX_CHUNKS = 1 << 16, 64  # bytes; 0.19.1's page is 48 kB, another server may send more

Labels: TypeAlias = frozenset[tuple[str, str]]
Series: TypeAlias = Mapping[Labels, float]

# Names as 0.19.1 has them (v1/spec_decode/metrics.py); the parser's samples keep `_total`.
DRAFTS = "vllm:spec_decode_num_drafts_total"
DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED_TOKENS = "vllm:spec_decode_num_accepted_tokens_total"
ACCEPTED_PER_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
STARTED = "process_start_time_seconds"  # prometheus_client's own, does not exist with several API servers


@dataclass(frozen=True)
class Histogram:
    """Observations by upper bound."""

    buckets: tuple[tuple[float, float], ...]
    """(bound, observations up to it), sorted; the last bound is infinite."""
    total: float = 0.0
    """Sum of all observations, in their own unit."""

    @property
    def count(self) -> float:
        """Number of observations."""
        return self.buckets[-1][1] if self.buckets else 0.0

    @property
    def mean(self) -> float | None:
        """The mean observation; None without observations."""
        if not self.count:
            return None
        return self.total / self.count

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile (0 to 1) as PromQL's `histogram_quantile` does; None without observations.

        Linear inside a bucket, the first one from 0 on. In the infinite bucket the answer is the last finite
        bound.
        """
        if not self.count:
            return None
        rank = q * self.count
        for (lower, before), (upper, until) in pairwise(((0.0, 0.0), *self.buckets)):
            if until < rank or until <= before:
                continue
            if math.isinf(upper):
                return lower
            return lower + (upper - lower) * (rank - before) / (until - before)
        return self.buckets[-1][0]


@dataclass(frozen=True)
class Page:
    """One scraped page: every sample by its name and labels."""

    at_s: float
    """The time of the scrape, on the monotonic clock, in seconds."""
    samples: Mapping[str, Series]
    types: Mapping[str, str]
    """Family name -> counter, gauge, histogram …; the parser takes `_total` off counters' families."""

    def value(self, name: str) -> float | None:
        """Return the sum over all series of that name; None when the page has none."""
        series = self.samples.get(name)
        if not series:
            return None
        return sum(series.values())

    def mean(self, name: str) -> float | None:
        """Return the mean of all series of that name; None when the page has none."""
        series = self.samples.get(name)
        if not series:
            return None
        return sum(series.values()) / len(series)

    def increase(self, name: str, since: "Page") -> float | None:
        """Return the increase of a counter since an earlier page; None when this page does not have it."""
        series = self.samples.get(name)
        if not series:
            return None
        return sum(_increases(series, since.samples.get(name, {})).values())

    def increase_by_label(self, name: str, label: str, since: "Page") -> dict[str, float]:
        """Return the increase of a counter for each value of `label`."""
        sums: dict[str, float] = {}
        increases = _increases(self.samples.get(name, {}), since.samples.get(name, {}))
        for labels, increase in increases.items():
            key = dict(labels).get(label)
            if key is not None:
                sums[key] = sums.get(key, 0.0) + increase
        return sums

    def rate(self, name: str, since: "Page") -> float | None:
        """Return the increase per second since an earlier page.

        None when this page does not have the counter, or no time has passed.
        """
        increase = self.increase(name, since)
        elapsed_s = self.at_s - since.at_s
        if increase is None or elapsed_s <= 0:
            return None
        return increase / elapsed_s

    def histogram(self, name: str, since: "Page") -> Histogram | None:
        """Return the observations since an earlier page; None when this page has no such histogram."""
        buckets = self.increase_by_label(f"{name}_bucket", "le", since)
        if not buckets:
            return None
        return Histogram(tuple(_sorted_by_number(buckets)), self.increase(f"{name}_sum", since) or 0.0)

    def restarted(self, since: "Page") -> bool:
        """Return True if the engine has restarted since an earlier page."""
        started_before = since.samples.get(STARTED, {})
        for labels, started in self.samples.get(STARTED, {}).items():
            if started != started_before.get(labels, started):
                return True
        for name, kind in self.types.items():
            if kind != "counter":
                continue
            earlier = since.samples.get(f"{name}_total", {})
            for labels, value in self.samples.get(f"{name}_total", {}).items():
                if value < earlier.get(labels, 0.0):
                    return True
        return False


@dataclass(frozen=True)
class SpeculativeDecoding:
    """The drafter's counters, of one page or between two."""

    drafts: float
    draft_tokens: float
    accepted_tokens: float
    accepted_per_position: tuple[float, ...]
    """Accepted tokens at each position of a draft, the first position first."""

    @property
    def acceptance_rate(self) -> float | None:
        """The share of draft tokens that were accepted, 0 to 1; None without drafts."""
        if not self.draft_tokens:
            return None
        return self.accepted_tokens / self.draft_tokens

    @property
    def acceptance_length(self) -> float | None:
        """Mean tokens per step of the target, its own one included; None without drafts."""
        if not self.drafts:
            return None
        return 1 + self.accepted_tokens / self.drafts

    @property
    def acceptance_by_position(self) -> tuple[float, ...]:
        """The share of drafts whose token was accepted, for each position, 0 to 1; empty without drafts."""
        if not self.drafts:
            return ()
        return tuple(accepted / self.drafts for accepted in self.accepted_per_position)


def speculative_decoding(page: Page, since: Page | None = None) -> SpeculativeDecoding | None:
    """Return the drafter's counters since an earlier page, or since the start; None without a drafter."""
    earlier = since or Page(0.0, {}, {})
    drafts = page.increase(DRAFTS, earlier)
    if drafts is None:
        return None
    positions = page.increase_by_label(ACCEPTED_PER_POSITION, "position", earlier)
    return SpeculativeDecoding(
        drafts=drafts,
        draft_tokens=page.increase(DRAFT_TOKENS, earlier) or 0.0,
        accepted_tokens=page.increase(ACCEPTED_TOKENS, earlier) or 0.0,
        accepted_per_position=tuple(count for _, count in _sorted_by_number(positions)),
    )


# A share, of which a sum means nothing.
_AVERAGED = "vllm:kv_cache_usage_perc"


def merged(pages: Mapping[str, Page]) -> Page:
    """Return one page with the series of several engines, by name, as those of one engine with several ranks.

    A share is the mean of the engines that have it.
    """
    samples: dict[str, dict[Labels, float]] = {}
    types: dict[str, str] = {}
    for name, page in pages.items():
        types |= page.types
        for metric, series in page.samples.items():
            divisor = 1
            if metric == _AVERAGED:
                divisor = sum(metric in each.samples for each in pages.values())
            here = samples.setdefault(metric, {})
            for labels, value in series.items():
                here[labels | {("replica", name)}] = value / divisor
    return Page(max(page.at_s for page in pages.values()), samples, types)


def metrics_url(base_url: str) -> str:
    """Return the URL of the page of the server whose OpenAI endpoint is `base_url`, which ends in /v1."""
    return base_url.rstrip("/").removesuffix("/v1") + "/metrics"


def scrape(url: str, access: EndpointCredentials = ANONYMOUS) -> Page:
    """Fetch and read a page, without a proxy. Raises NetworkError when it is not a page of vLLM's."""
    page = parse(_fetch(url, access), at_s=time.monotonic())
    if not any(name.startswith("vllm:") for name in page.samples):
        raise NetworkError(f"{url} has none of vLLM's metrics", hint="deckard-deploy status")
    return page


def parse(text: str, *, at_s: float = 0.0) -> Page:
    """Parse a page in Prometheus's text format. Raises NetworkError when it is something else."""
    samples: dict[str, dict[Labels, float]] = {}
    types = {}
    try:
        for family in text_string_to_metric_families(text):
            types[family.name] = family.type
            for sample in family.samples:
                if not math.isfinite(sample.value):
                    continue  # cannot be shown or added
                samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    except (ValueError, IndexError) as error:
        # The parser quotes the server, which may have sent control characters.
        reason = "".join(letter for letter in str(error) if letter.isprintable())
        raise NetworkError(
            f"what was sent is no metrics page: {reason}"[:200], hint="deckard-deploy status"
        ) from error
    return Page(at_s, samples, types)


def _fetch(url: str, access: EndpointCredentials) -> str:
    with session(access) as client:
        try:
            with client.get(url, timeout=TIMEOUT_S, allow_redirects=False, stream=True) as response:
                if response.status_code != 200:
                    raise NetworkError(
                        f"{url} answered HTTP {response.status_code}", hint="deckard-deploy status"
                    )
                body = b"".join(islice(response.iter_content(CHUNK), MAX_CHUNKS))
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {type(error).__name__}", hint="deckard-deploy status") from error
    return body.decode("utf-8", "replace")


def _increases(later: Series, earlier: Series) -> dict[Labels, float]:
    """Return the increase of each series: one that fell has restarted, and a new one began at zero."""
    increases = {}
    for labels, value in later.items():
        before = earlier.get(labels, 0.0)
        if value < before:
            before = 0.0
        increases[labels] = value - before
    return increases


def _sorted_by_number(sums: Mapping[str, float]) -> list[tuple[float, float]]:
    """Return (label, value) pairs, sorted; labels that are not numbers are left out, as PromQL does."""
    pairs = []
    for text, value in sums.items():
        label = _number_or_nan(text)
        if not math.isnan(label):
            pairs.append((label, value))
    return sorted(pairs)


def _number_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
