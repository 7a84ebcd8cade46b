"""The Grafana dashboards as data, without panels whose metrics the server does not export."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deckard_deploy.catalog.metric_names import MetricNames, of_deployment
from deckard_deploy.planning.break_even import break_even
from deckard_deploy.planning.plan import LaunchPlan

UID = "deckard-deploy"
SOURCE = {"type": "prometheus", "uid": "deckard-prometheus"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 3  # Grafana's grid is 24 wide


_FIRING = 'ALERTS{alertstate="firing"}'
_LINE = "{{deployment}}"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A graph. unit: Grafana's name of it. queries: (PromQL expression, name of its line)."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    maximum: float | None = None


def _percentiles(name: str) -> tuple[tuple[str, str], ...]:
    rates = f"sum by (le) (rate({name}_bucket[$__rate_interval]))"
    return (
        (f"histogram_quantile(0.5, {rates})", "p50"),
        (f"histogram_quantile(0.95, {rates})", "p95"),
        (f"histogram_quantile(0.99, {rates})", "p99"),
    )


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
        maximum=1,
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
        maximum=1,
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
        maximum=1,
    ),
    Panel(
        title="Drafted tokens accepted, by position",
        unit="percentunit",
        queries=((_BY_POSITION, "{{position}}"),),
        maximum=1,
    ),
    Panel(
        title="Age of the engine's process",
        unit="s",
        queries=(('time() - process_start_time_seconds{job="vllm"}', "since its start"),),
    ),
)
# Metrics that every listed engine exports, one line a deployment.
_OVERVIEW = (
    Panel(title="Engine answers", unit="short", queries=(('up{job="vllm"}', _LINE),), maximum=1),
    Panel(
        title="Generated tokens per second",
        unit="short",
        queries=(("sum by (deployment) (rate(vllm:generation_tokens_total[$__rate_interval]))", _LINE),),
    ),
    Panel(
        title="Running requests",
        unit="short",
        queries=(("sum by (deployment) (vllm:num_requests_running)", _LINE),),
    ),
    Panel(
        title="Waiting requests",
        unit="short",
        queries=(("sum by (deployment) (vllm:num_requests_waiting)", _LINE),),
    ),
    Panel(
        title="KV cache in use",
        unit="percentunit",
        queries=(("max by (deployment) (vllm:kv_cache_usage_perc)", _LINE),),
        maximum=1,
    ),
)


def dashboard(plan: LaunchPlan, names: MetricNames) -> dict[str, Any]:
    """Return the dashboard as data, for Grafana's file provisioning."""
    threshold = break_even(plan)
    graphs: list[dict[str, Any]] = []
    for panel in PANELS:
        if _is_exported(panel, names, drafter=threshold is not None):
            graphs.append(_graph(panel, len(graphs), threshold, plan.deployment))
    title = f"{plan.deployment}: {plan.model} on {plan.profile}"
    alerts = of_deployment(_FIRING, plan.deployment)
    return _dashboard(title, [*graphs, _alerts(alerts, len(graphs))])


def overview() -> dict[str, Any]:
    """Return the dashboard of all deployments that one Prometheus asks."""
    graphs = [_graph(panel, place, None, None) for place, panel in enumerate(_OVERVIEW)]
    return _dashboard("All deployments", [*graphs, _alerts(_FIRING, len(graphs))])


def _dashboard(title: str, panels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "uid": UID,
        "title": title,
        "tags": ["deckard-deploy"],
        "timezone": "browser",
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "schemaVersion": 39,  # Grafana 11; newer ones migrate it
        "panels": list(panels),
    }


def _is_exported(panel: Panel, names: MetricNames, *, drafter: bool) -> bool:
    return all(names.exports_all_of(query, drafter=drafter) for query, _ in panel.queries)


def _graph(panel: Panel, place: int, threshold: float | None, deployment: str | None) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    limit = "" if threshold is None else f"{threshold:.3f}"
    targets = []
    for number, (query, line_name) in enumerate(panel.queries):
        expression = query.replace("{break_even}", limit)
        if deployment is not None:
            expression = of_deployment(expression, deployment)
        target = {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": line_name,
        }
        targets.append(target)
    return {
        **_frame(panel.title, "timeseries", place),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def _alerts(expression: str, place: int) -> dict[str, Any]:
    query = {
        "refId": "A",
        "datasource": SOURCE,
        "expr": expression,
        "instant": True,
        "format": "table",
    }
    return {**_frame("Alerts that fire", "table", place), "targets": [query]}


def _frame(title: str, kind: str, place: int) -> dict[str, Any]:
    row, column = divmod(place, COLUMNS)
    grid = {"h": HEIGHT, "w": WIDTH, "x": column * WIDTH, "y": row * HEIGHT}
    return {"id": place + 1, "title": title, "type": kind, "datasource": SOURCE, "gridPos": grid}
