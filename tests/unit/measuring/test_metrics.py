"""Reading /metrics: the real page of a real server, percentiles against known values, counters across a restart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring import metrics
from deckard_deploy.measuring.metrics import Histogram, Page, SpeculativeDecoding, parse

INF = float("inf")
EMPTY = Page(0.0, {}, {})


def page(text: str, at_s: float = 0.0) -> Page:
    return parse(text, at_s=at_s)


def tokens(count: float, at_s: float, start: float = 100.0) -> Page:
    return page(
        "# TYPE vllm:generation_tokens_total counter\n"
        f'vllm:generation_tokens_total{{engine="0"}} {count}\n'
        "# TYPE process_start_time_seconds gauge\n"
        f"process_start_time_seconds {start}\n",
        at_s,
    )


def test_rate_is_increase_per_second() -> None:
    assert tokens(70, at_s=12).rate("vllm:generation_tokens_total", tokens(10, at_s=10)) == 30


def test_fallen_counter_has_restarted_at_zero() -> None:
    before, after = tokens(1000, at_s=10), tokens(40, at_s=12, start=111.0)
    assert after.rate("vllm:generation_tokens_total", before) == 20
    assert after.restarted(before)


def test_restart_is_detected_by_start_time() -> None:
    assert tokens(50, at_s=12, start=111.0).restarted(tokens(40, at_s=10))


def test_restart_is_detected_without_start_time() -> None:
    text = "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total {}\n"
    assert page(text.format(5)).restarted(page(text.format(9)))
    assert not page(text.format(9)).restarted(page(text.format(9)))


def test_restart_of_one_engine_of_two_is_detected() -> None:
    text = '# TYPE n counter\nn_total{{engine="0"}} {}\nn_total{{engine="1"}} {}\n'
    before, after = page(text.format(100, 100)), page(text.format(300, 10))
    assert after.increase("n_total", before) == 210
    assert after.restarted(before)


def test_missing_metric_is_none() -> None:
    assert EMPTY.value("n") is None
    assert EMPTY.increase("n_total", EMPTY) is None
    assert EMPTY.histogram("n", EMPTY) is None
    # No time between.
    assert tokens(1, at_s=1).rate("vllm:generation_tokens_total", tokens(1, at_s=1)) is None


# Worked by hand after PromQL's definition of histogram_quantile for classic histograms
# (prometheus.io/docs/prometheus/latest/querying/functions).
@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        (((1, 10), (2, 20), (INF, 20)), 0.5, 1.0),
        (((1, 10), (2, 20), (INF, 20)), 0.75, 1.5),
        (((1, 10), (2, 20), (INF, 20)), 1.0, 2.0),
        (((1, 10), (2, 20), (INF, 20)), 0.25, 0.5),
        (((1, 0), (2, 0), (4, 8), (INF, 8)), 0.5, 3.0),
        (((1, 4), (2, 4), (4, 8), (INF, 8)), 0.5, 1.0),
        (((1, 2), (2, 2), (INF, 10)), 0.9, 2.0),
        (((INF, 10),), 0.9, 0.0),
        (((1, 0), (INF, 0)), 0.5, None),
        ((), 0.5, None),
    ],
)
def test_quantile_matches_promql(
    buckets: tuple[tuple[float, float], ...], q: float, expected: float | None
) -> None:
    assert Histogram(buckets).quantile(q) == expected


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_are_monotonic_and_bounded(counts: list[int], one: float, other: float) -> None:
    bounds = [*[float(2**n) for n in range(len(counts) - 1)], INF]
    histogram = Histogram(tuple((bound, float(sum(counts[: n + 1]))) for n, bound in enumerate(bounds)))
    low, high = (histogram.quantile(q) for q in sorted((one, other)))
    if low is None or high is None:
        assert sum(counts) == 0
    else:
        assert 0 <= low <= high <= bounds[-2]


def histogram_page(*counts: int) -> Page:
    lines = [f't_bucket{{le="{le}"}} {n}' for le, n in zip(("0.1", "0.5", "+Inf"), counts, strict=True)]
    return page(
        "# TYPE t histogram\n" + "\n".join([*lines, f"t_count {counts[-1]}", f"t_sum {counts[-1]}"]) + "\n"
    )


def test_percentiles_are_of_the_interval() -> None:
    # 100 fast ones before, 10 slow ones since: the page's own median is fast, the one of the interval is slow.
    before, after = histogram_page(100, 100, 100), histogram_page(100, 110, 110)
    between = after.histogram("t", before)
    assert between is not None
    assert between.count == 10
    assert between.quantile(0.5) == pytest.approx(0.3)
    whole = after.histogram("t", EMPTY)
    assert whole is not None
    assert (whole.quantile(0.5) or 0) < 0.1


def test_acceptance_between_two_pages() -> None:
    names = (metrics.DRAFTS, metrics.DRAFT_TOKENS, metrics.ACCEPTED_TOKENS)

    def drafted(*counts: int) -> Page:
        lines = [f"{name} {count}" for name, count in zip(names, counts[:3], strict=True)]
        lines += [f'{metrics.ACCEPTED_PER_POSITION}{{position="{n}"}} {c}' for n, c in enumerate(counts[3:])]
        return page("\n".join(lines) + "\n")

    found = metrics.speculative_decoding(drafted(30, 90, 45, 28, 12, 5), drafted(10, 30, 15, 10, 3, 2))
    assert found == SpeculativeDecoding(20, 60, 30, (18, 9, 3))
    assert (found.acceptance_rate, found.acceptance_length) == (0.5, 2.5)
    assert found.acceptance_by_position == (0.9, 0.45, 0.15)


def test_positions_are_sorted_as_numbers() -> None:
    lines = [f'{metrics.ACCEPTED_PER_POSITION}{{position="{n}"}} {100 - n}' for n in (10, 2, 0, 1)]
    found = metrics.speculative_decoding(page("\n".join([f"{metrics.DRAFTS} 100", *lines]) + "\n"))
    assert found is not None
    assert found.accepted_per_position == (100, 99, 98, 90)


def test_labels_that_are_not_numbers_are_ignored() -> None:
    lines = [f'{metrics.ACCEPTED_PER_POSITION}{{position="{n}"}} 9' for n in ("1", "first", "\u00b2", "")]
    found = metrics.speculative_decoding(page("\n".join([f"{metrics.DRAFTS} 10", *lines]) + "\n"))
    assert found is not None
    assert found.accepted_per_position == (9,)
    buckets = [f't_bucket{{le="{le}"}} 4' for le in ("x", "NaN", "", "0.5", "+Inf")]
    histogram = page("\n".join(buckets) + "\n").histogram("t", EMPTY)
    assert histogram == Histogram(((0.5, 4), (INF, 4)))


@pytest.mark.parametrize("number", ["NaN", "+Inf", "-Inf", "1e400"])
def test_value_that_is_not_finite_is_ignored(number: str) -> None:
    found = page(f'n {number}\nm{{engine="0"}} {number}\nm{{engine="1"}} 2\n')
    assert (found.value("n"), found.value("m")) == (None, 2)


def test_rates_are_none_without_drafter_or_drafts() -> None:
    assert metrics.speculative_decoding(EMPTY) is None
    idle = SpeculativeDecoding(0, 0, 0, (0, 0))
    assert (idle.acceptance_rate, idle.acceptance_length, idle.acceptance_by_position) == (None, None, ())


def test_page_of_another_server_is_refused_in_one_line() -> None:
    for text in ("<html>\n<body>It works!</body>\n</html>\n", 'a{\x1b[2J"} 1\n', 'a{b="c",\x1b[2Jb="c"} 1\n'):
        with pytest.raises(NetworkError, match="no metrics page") as refused:
            parse(text)
        assert refused.value.message.isprintable()


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/"])
def test_metrics_url_replaces_v1(base_url: str) -> None:
    assert metrics.metrics_url(base_url) == "http://127.0.0.1:8000/metrics"


def test_pages_of_replicas_make_one_with_sums_and_means() -> None:
    use = "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc %s\n"
    both = metrics.merged({"box-1": page(use % 0.2, 3.0), "box-2": page(use % 0.6, 4.0)})
    assert (both.value("vllm:kv_cache_usage_perc"), both.at_s) == (0.4, 4.0)
    earlier = metrics.merged({"box-1": tokens(10, 10.0, start=150.0), "box-2": tokens(100, 10.0)})
    later = metrics.merged({"box-1": tokens(30, 12.0, start=150.0), "box-2": tokens(140, 12.0)})
    assert later.rate("vllm:generation_tokens_total", earlier) == 30
    assert not later.restarted(earlier)
    assert later.mean(metrics.STARTED) == 125.0
    one_is_away = metrics.merged({"box-2": tokens(150, 13.0)})
    assert not one_is_away.restarted(later)
    assert not metrics.merged({"box-1": tokens(40, 14.0, start=150.0), "box-2": tokens(160, 14.0)}).restarted(
        one_is_away
    )
    restarted = metrics.merged({"box-1": tokens(1, 14.0, start=200.0), "box-2": tokens(150, 14.0)})
    assert restarted.restarted(later)
