"""Metrics of a release: by the name of a sample, and by a query."""

import pytest

from deckard_deploy.catalog.metric_names import Metric, MetricNames, metric_names, names_in_query
from deckard_deploy.errors import BadInputError

NAMES = MetricNames(
    vllm_version="0",
    metrics={
        "vllm:ttft_seconds": Metric(type="histogram", labels=()),
        "vllm:kv_count": Metric(type="gauge", labels=()),
        "vllm:drafts_total": Metric(type="counter", labels=(), needs="drafter"),
    },
)


@pytest.mark.parametrize("suffix", ["bucket", "sum", "count"])
def test_sample_of_histogram_is_found(suffix: str):
    assert NAMES.find(f"vllm:ttft_seconds_{suffix}") is NAMES.metrics["vllm:ttft_seconds"]


def test_name_that_ends_like_a_sample_is_itself():
    assert NAMES.find("vllm:kv_count") is NAMES.metrics["vllm:kv_count"]


def test_suffix_of_gauge_is_unknown():
    assert NAMES.find("vllm:kv_count_bucket") is None


def test_query_names_every_sample_once_each():
    query = 'sum(rate(vllm:drafts_total{a="vllm"}[5m])) / process_cpu_seconds_total > on() up'
    assert names_in_query(query) == ["vllm:drafts_total", "process_cpu_seconds_total"]


@pytest.mark.parametrize(
    ("query", "drafter", "exported"),
    [
        ("vllm:kv_count", False, True),
        ("vllm:drafts_total", True, True),
        ("vllm:drafts_total", False, False),
        ("vllm:kv_count + vllm:gone", True, False),
    ],
)
def test_query_needs_exported_metrics(query: str, *, drafter: bool, exported: bool):
    assert NAMES.exports_all_of(query, drafter=drafter) is exported


def test_release_without_list_names_the_known_ones():
    with pytest.raises(BadInputError, match=r"vllm-0\.0\.1 are not listed; known: .*vllm-0\.19\.1"):
        metric_names("vllm-0.0.1")
