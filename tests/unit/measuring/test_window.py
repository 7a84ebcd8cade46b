"""The figures of a window, from a real server's page and from pages changed in one metric."""

from pathlib import Path

import pytest

from deckard_deploy.catalog.metric_names import metric_names
from deckard_deploy.measuring import metrics
from deckard_deploy.measuring import window as window_module
from deckard_deploy.measuring.metrics import Page, parse
from deckard_deploy.measuring.window import Latency, Window, figures

PAGES = sorted((Path(__file__).parent / "pages").glob("*.txt"))
METRICS_READ = [
    *(
        value
        for module in (window_module, metrics)
        for value in vars(module).values()
        if str(value).startswith("vllm:")
    ),
    metrics.STARTED,
]


def real_page(at_s: float = 0.0, **changed: float) -> Page:
    """The page of vLLM 0.19.1, with counters changed by their names without `vllm:` and `_total`."""
    lines = []
    for line in PAGES[0].read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition("{")
        key = name.removeprefix("vllm:").removesuffix("_total")
        lines.append(f"{name}{{{rest.rpartition(' ')[0]} {changed[key]}" if rest and key in changed else line)
    return parse("\n".join(lines) + "\n", at_s=at_s)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_metric_read_is_exported_by_vllm(path: Path) -> None:
    names = metric_names(path.stem)
    assert [name for name in METRICS_READ if names.find(name) is None] == []
    assert len(METRICS_READ) > 12


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_committed_metric_names_match_the_page(path: Path) -> None:
    page, names = parse(path.read_text(encoding="utf-8")), metric_names(path.stem)
    assert {name for name in page.samples if names.find(name) is None} == set()
    families = {name + ("_total" if kind == "counter" else "") for name, kind in page.types.items()}
    assert set(names.metrics) == families


def test_single_page_has_gauges_but_no_rates() -> None:
    found = Window().add(real_page())
    assert (found.running, found.waiting, found.kv_use, found.restarts) == (0, 0, 0, 0)
    assert (found.generation_tok_s, found.first_token, found.prefix_hits) == (
        None,
        Latency(None, None, None),
        None,
    )


def test_figures_are_increases_between_pages() -> None:
    before = real_page(
        0, generation_tokens=100, prefix_cache_queries=50, prefix_cache_hits=0, num_preemptions=1
    )
    after = real_page(
        10, generation_tokens=400, prefix_cache_queries=90, prefix_cache_hits=10, num_preemptions=4
    )
    found = figures(after, before)
    assert (found.window_s, found.generation_tok_s, found.prefix_hits, found.preemptions) == (10, 30, 0.25, 3)


def test_latencies_of_a_real_page_are_ordered() -> None:
    found = figures(real_page(1), Page(0.0, {}, {}))
    for latency in (found.first_token, found.between_tokens, found.whole_request):
        assert latency.p50_s is not None
        assert latency.p95_s is not None
        assert 0 < latency.p50_s <= latency.p95_s < 60


def test_window_drops_old_pages() -> None:
    window = Window()
    found = [window.add(real_page(second, generation_tokens=second**2)) for second in range(0, 60, 2)][-1]
    assert window_module.WINDOW_S <= found.window_s < window_module.WINDOW_S + 2
    assert found.generation_tok_s == pytest.approx((58**2 - 42**2) / 16)


def test_restart_is_counted_and_empties_the_window() -> None:
    window = Window()
    window.add(real_page(0, generation_tokens=1000))
    found = window.add(real_page(2, generation_tokens=5, process_start_time_seconds=9.9e9))
    assert (found.restarts, found.generation_tok_s) == (1, None)
    found = window.add(real_page(4, generation_tokens=25, process_start_time_seconds=9.9e9))
    assert (found.restarts, found.generation_tok_s) == (1, 10)


def test_acceptance_of_a_real_drafter_page() -> None:
    """0.32.0 drafted with ngram: the tiny model repeats itself, so everything was accepted."""
    page = parse((PAGES[0].parent / "vllm-0.32.0.txt").read_text(encoding="utf-8"), at_s=1)
    found = figures(page, Page(0.0, {}, {}))
    assert (found.acceptance_rate, found.acceptance_length) == (1.0, 5.0)
    assert found.acceptance_by_position == (1.0, 1.0, 1.0, 1.0)
