"""The Grafana dashboard, as data: panels of queries, left out where a server does not export what they ask for."""

from dataclasses import dataclass
from typing import Any

from deckard_deploy.catalog.metric_names import MetricNames
from deckard_deploy.planning.break_even import break_even
from deckard_deploy.planning.plan import LaunchPlan

SOURCE = {"type": "prometheus", "uid": "deckard-prometheus"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 3  # Grafana's grid is 24 wide


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A graph: a unit of Grafana's, and queries with the name of their line."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    most: float | None = None


def _percentiles(name: str) -> tuple[tuple[str, str], ...]:
    rates = f"sum by (le) (rate({name}_bucket[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {rates})", f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99))


def _rate(name: str) -> str:
    return f"sum(rate({name}[$__rate_interval]))"


def _share(part: str, whole: str) -> str:
    return f"{_rate(part)} / {_rate(whole)}"


_BY_POSITION = (
    "sum by (position) (rate(vllm:spec_decode_num_accepted_tokens_per_pos_total[$__rate_interval]))"
    f" / ignoring(position) group_left() {_rate('vllm:spec_decode_num_drafts_total')}"
)
PANELS = (
    Panel(
        title="Throughput, tokens per second",
        unit="short",
        queries=(
            (_rate("vllm:generation_tokens_total"), "generation"),
            (_rate("vllm:prompt_tokens_total"), "prompt"),
        ),
    ),
    Panel(
        title="Requests",
        unit="short",
        queries=(
            ("sum(vllm:num_requests_running)", "running"),
            ("sum(vllm:num_requests_waiting)", "waiting"),
        ),
    ),
    Panel(
        title="Ended requests per second",
        unit="reqps",
        queries=(
            (
                "sum by (finished_reason) (rate(vllm:request_success_total[$__rate_interval]))",
                "{{finished_reason}}",
            ),
        ),
    ),
    Panel(title="Time to first token", unit="s", queries=_percentiles("vllm:time_to_first_token_seconds")),
    Panel(title="Time between tokens", unit="s", queries=_percentiles("vllm:inter_token_latency_seconds")),
    Panel(title="Whole request", unit="s", queries=_percentiles("vllm:e2e_request_latency_seconds")),
    Panel(
        title="KV cache in use",
        unit="percentunit",
        queries=(("max(vllm:kv_cache_usage_perc)", "used"),),
        most=1,
    ),
    Panel(
        title="Preemptions per second",
        unit="short",
        queries=((_rate("vllm:num_preemptions_total"), "thrown out"),),
    ),
    Panel(
        title="Prompt tokens found in the prefix cache",
        unit="percentunit",
        queries=((_share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"), "found"),),
        most=1,
    ),
    Panel(
        title="Drafted tokens accepted",
        unit="percentunit",
        queries=(
            (
                _share(
                    "vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_draft_tokens_total"
                ),
                "all",
            ),
            ("{break_even}", "the drafter pays above this"),
        ),
        most=1,
    ),
    Panel(
        title="Drafted tokens accepted, by position",
        unit="percentunit",
        queries=((_BY_POSITION, "{{position}}"),),
        most=1,
    ),
    Panel(
        title="Age of the engine's process",
        unit="s",
        queries=(('time() - process_start_time_seconds{job="vllm"}', "since its start"),),
    ),
)


def dashboard(plan: LaunchPlan, names: MetricNames) -> dict[str, Any]:
    """The dashboard as data, for Grafana's file provisioning."""
    threshold = break_even(plan)
    known = [
        panel
        for panel in PANELS
        if all(names.exports_all_of(query, drafter=threshold is not None) for query, _ in panel.queries)
    ]
    graphs = [_graph(panel, place, threshold) for place, panel in enumerate(known)]
    return {
        "uid": "deckard-deploy",
        "title": f"{plan.deployment}: {plan.model} on {plan.profile}",
        "tags": ["deckard-deploy"],
        "timezone": "browser",
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "schemaVersion": 39,  # Grafana 11; newer ones migrate it
        "panels": [*graphs, _alerts(len(graphs))],
    }


def _graph(panel: Panel, place: int, threshold: float | None) -> dict[str, Any]:
    limits = {"min": 0} | ({"max": panel.most} if panel.most is not None else {})
    limit = "" if threshold is None else f"{threshold:.3f}"
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": SOURCE,
            "expr": query.replace("{break_even}", limit),
            "legendFormat": of,
        }
        for n, (query, of) in enumerate(panel.queries)
    ]
    return {
        **_frame(panel.title, "timeseries", place),
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits}, "overrides": []},
        "targets": targets,
    }


def _alerts(place: int) -> dict[str, Any]:
    query = {
        "refId": "A",
        "datasource": SOURCE,
        "expr": 'ALERTS{alertstate="firing"}',
        "instant": True,
        "format": "table",
    }
    return {**_frame("Alerts that fire", "table", place), "targets": [query]}


def _frame(title: str, kind: str, place: int) -> dict[str, Any]:
    row, column = divmod(place, COLUMNS)
    grid = {"h": HEIGHT, "w": WIDTH, "x": column * WIDTH, "y": row * HEIGHT}
    return {"id": place + 1, "title": title, "type": kind, "datasource": SOURCE, "gridPos": grid}
