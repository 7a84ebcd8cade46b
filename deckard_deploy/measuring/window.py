"""What a server does right now: figures of the last seconds, from pages of its /metrics."""

from collections import deque
from dataclasses import dataclass

from deckard_deploy.measuring.metrics import STARTED, Page, SpeculativeDecoding, speculative_decoding

WINDOW_S = 15.0
"""Figures are of this long: a first token every few seconds still gives percentiles."""

GENERATED, PROMPT = "vllm:generation_tokens_total", "vllm:prompt_tokens_total"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
KV_USE, PREEMPTIONS = "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"
PREFIX_QUERIES, PREFIX_HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
FINISHED = "vllm:request_success_total"
FIRST_TOKEN, BETWEEN_TOKENS = "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"
WHOLE_REQUEST = "vllm:e2e_request_latency_seconds"


@dataclass(frozen=True)
class Latency:
    """Percentiles in seconds; None where nothing was observed."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One screen. None: the page does not have it, or nothing happened to measure it by."""

    started_at: float | None
    """Seconds since 1970."""
    window_s: float
    generation_tok_s: float | None
    prompt_tok_s: float | None
    running: float | None
    waiting: float | None
    finished: float | None
    """Requests that ended, however they did, in the window."""
    kv_use: float | None
    """Share of the KV cache in use, 0 to 1."""
    preemptions: float | None
    """Requests thrown out of the KV cache in the window."""
    prefix_hits: float | None
    """Prompt tokens found in the prefix cache, of all that were looked for in the window, 0 to 1."""
    first_token: Latency
    between_tokens: Latency
    whole_request: Latency
    acceptance_rate: float | None
    """Accepted tokens of all drafted ones, 0 to 1."""
    acceptance_length: float | None
    """Tokens that one step of the target yields, with its own one."""
    acceptance_by_position: tuple[float, ...]
    restarts: int
    """Seen since the watching began."""


class Window:
    """The pages of the last seconds. A restart empties it: nothing before it says anything about the new engine."""

    def __init__(self) -> None:
        self._pages: deque[Page] = deque()
        self.restarts = 0

    def add(self, page: Page) -> Figures:
        """Take in the newest page and say what the window shows."""
        if self._pages and page.restarted(self._pages[-1]):
            self.restarts += 1
            self._pages.clear()
        self._pages.append(page)
        while len(self._pages) > 2 and page.at_s - self._pages[1].at_s >= WINDOW_S:
            self._pages.popleft()
        return figures(page, self._pages[0], restarts=self.restarts)


def figures(page: Page, since: Page, *, restarts: int = 0) -> Figures:
    """What happened between two pages of one engine; they may be the same one."""
    drafting = speculative_decoding(page, since) or SpeculativeDecoding(0, 0, 0, ())
    return Figures(
        started_at=page.value(STARTED),
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
    return Latency(*(histogram.quantile(q) for q in (0.5, 0.95, 0.99)))


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
