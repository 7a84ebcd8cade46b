"""The figures of a server's last seconds, from pages of its /metrics."""

from collections import deque
from dataclasses import dataclass

from deckard_deploy.measuring.metrics import STARTED, Page, SpeculativeDecoding, speculative_decoding

WINDOW_S = 15.0
"""The length of the window: a first token every few seconds still gives percentiles."""

GENERATED, PROMPT = "vllm:generation_tokens_total", "vllm:prompt_tokens_total"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
KV_USE, PREEMPTIONS = "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"
PREFIX_QUERIES, PREFIX_HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
FINISHED = "vllm:request_success_total"
FIRST_TOKEN, BETWEEN_TOKENS = "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"
WHOLE_REQUEST = "vllm:e2e_request_latency_seconds"


@dataclass(frozen=True)
class Latency:
    """Percentiles in seconds; None without observations."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of one window. None: the page lacks the metric, or the window has no observation of it."""

    started_at: float | None
    """Seconds since 1970; of several engines the mean."""
    window_s: float
    generation_tok_s: float | None
    prompt_tok_s: float | None
    running: float | None
    waiting: float | None
    finished: float | None
    """Requests that ended in the window, for any reason."""
    kv_use: float | None
    """Share of the KV cache in use, 0 to 1."""
    preemptions: float | None
    """Requests preempted in the window."""
    prefix_hits: float | None
    """The share of the window's prompt tokens that were in the prefix cache, 0 to 1."""
    first_token: Latency
    between_tokens: Latency
    whole_request: Latency
    acceptance_rate: float | None
    """The share of draft tokens that were accepted, 0 to 1."""
    acceptance_length: float | None
    """Tokens per step of the target, its own one included."""
    acceptance_by_position: tuple[float, ...]
    restarts: int
    """Restarts since the first page."""


class Window:
    """The pages of the last seconds. A restart empties the window: older pages are another process's."""

    def __init__(self) -> None:
        self._pages: deque[Page] = deque()
        self.restarts = 0

    def add(self, page: Page) -> Figures:
        """Add the newest page and return the figures of the window."""
        if self._pages and page.restarted(self._pages[-1]):
            self.restarts += 1
            self._pages.clear()
        self._pages.append(page)
        while len(self._pages) > 2 and page.at_s - self._pages[1].at_s >= WINDOW_S:
            self._pages.popleft()
        return figures(page, self._pages[0], restarts=self.restarts)


def figures(page: Page, since: Page, *, restarts: int = 0) -> Figures:
    """Return the figures between two pages of one engine, which may be the same page."""
    drafting = speculative_decoding(page, since) or SpeculativeDecoding(0, 0, 0, ())
    return Figures(
        started_at=page.mean(STARTED),
        window_s=page.at_s - since.at_s,
        generation_tok_s=page.rate(GENERATED, since),
        prompt_tok_s=page.rate(PROMPT, since),
        running=page.value(RUNNING),
        waiting=page.value(WAITING),
        finished=page.increase(FINISHED, since),
        kv_use=page.value(KV_USE),
        preemptions=page.increase(PREEMPTIONS, since),
        prefix_hits=_share(page.increase(PREFIX_HITS, since), page.increase(PREFIX_QUERIES, since)),
        first_token=_latency(page, since, FIRST_TOKEN),
        between_tokens=_latency(page, since, BETWEEN_TOKENS),
        whole_request=_latency(page, since, WHOLE_REQUEST),
        acceptance_rate=drafting.acceptance_rate,
        acceptance_length=drafting.acceptance_length,
        acceptance_by_position=drafting.acceptance_by_position,
        restarts=restarts,
    )


def _latency(page: Page, since: Page, name: str) -> Latency:
    histogram = page.histogram(name, since)
    if histogram is None:
        return Latency(None, None, None)
    return Latency(histogram.quantile(0.5), histogram.quantile(0.95), histogram.quantile(0.99))


def _share(part: float | None, whole: float | None) -> float | None:
    if part is None or not whole:
        return None
    return part / whole
