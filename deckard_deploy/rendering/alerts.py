"""Prometheus alerts for the owner of one machine, each with the command to type when it fires.

Thresholds are choices, not measurements; only the draft acceptance's is computed (planning/break_even.py).
"""

from dataclasses import dataclass
from typing import Any, Literal

from deckard_deploy.catalog.metric_names import MetricNames, of_deployment
from deckard_deploy.planning.break_even import break_even
from deckard_deploy.planning.plan import LaunchPlan

JOB, GATEWAY_JOB = "vllm", "gateway"
# People do not wait longer. On a Spark one prompt of the full context may take longer.
SLOW_FIRST_TOKEN_S = 10
FULL_CACHE = 0.9
MIN_DRAFTS = 200  # in a quarter of an hour; fewer drafts say little about the acceptance


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One rule. duration: time for which the query must hold. command: the first command to type."""

    name: str
    severity: Literal["critical", "warning"]
    query: str
    duration: str
    summary: str
    command: str
    needs_gateway: bool = False


_QUEUE = "(vllm:num_requests_running + vllm:num_requests_waiting) > 0"
ALERTS = (
    Alert(
        name="ServerDown",
        severity="critical",
        query=f'up{{job="{JOB}"}} == 0',
        duration="2m",
        summary="/metrics has not answered for two minutes: the engine is down, or still loads",
        command="deckard-deploy status --name {name}; deckard-deploy logs --name {name}",
    ),
    Alert(
        name="RequestsFail",
        severity="critical",
        query='sum by (instance) (increase(http_requests_total{status="5xx"}[5m])) > 0'
        ' or sum by (instance) (increase(vllm:request_success_total{finished_reason="error"}[5m])) > 0',
        duration="0m",
        summary="completions or canaries were answered with an error of the server in the last five minutes",
        command="deckard-deploy chat --name {name} hi; deckard-deploy logs --name {name}",
    ),
    Alert(
        name="Stalled",
        severity="critical",
        query=f"{_QUEUE} and rate(vllm:generation_tokens_total[5m]) == 0"
        " and rate(vllm:prompt_tokens_total[5m]) == 0",
        duration="1m",
        summary="requests wait, and no token came for five minutes: the engine hangs while it looks alive",
        command="deckard-deploy logs --name {name}; deckard-deploy down --name {name}, then up again",
    ),
    Alert(
        name="RequestsStuck",
        severity="critical",
        # nginx counts the question for this figure as well. The engine's own counts come with its steps, so that a
        # rank that hangs, or an engine that hangs before its first step, says that it has no request.
        query="min_over_time(deckard_gateway_connections_writing[5m]) - 1 > on (deployment)"
        " max_over_time((sum by (deployment) (vllm:num_requests_running + vllm:num_requests_waiting))[5m:15s])",
        duration="1m",
        summary="nginx has waited for five minutes for requests that no engine reports: a rank, or all, hangs",
        command="deckard-deploy logs --name {name}; deckard-deploy down --name {name}, then up again",
        needs_gateway=True,
    ),
    Alert(
        name="GatewayDown",
        severity="critical",
        query=f'up{{job="{GATEWAY_JOB}"}} == 0',
        duration="1m",
        summary="nginx has not answered for a minute: no client reaches the engine",
        command="deckard-deploy logs --gateway --name {name}; deckard-deploy watch --name {name} starts it again",
        needs_gateway=True,
    ),
    Alert(
        name="GatewayOpen",
        severity="warning",
        # Open is how a gateway without keys starts; what is reported is that it was not open before.
        query="deckard_gateway_open == 1 and min_over_time(deckard_gateway_open[1h]) == 0",
        duration="0m",
        summary="every program of this machine is served without a key; within the last hour a key was needed",
        command="deckard-deploy keys list; deckard-deploy keys add NAME: from then on a key is needed",
        needs_gateway=True,
    ),
    Alert(
        name="CacheFull",
        severity="warning",
        query=f"avg_over_time(vllm:kv_cache_usage_perc[5m]) > {FULL_CACHE}"
        " and increase(vllm:num_preemptions_total[5m]) > 0",
        duration="5m",
        summary="the KV cache is full and requests are thrown out of it, to be computed again",
        command="deckard-deploy status --name {name}; then `plan` with the settings that it was started with and"
        " --set max-num-seqs=N with a smaller N than now",
    ),
    Alert(
        name="DrafterSlows",
        severity="warning",
        query="sum by (instance) (rate(vllm:spec_decode_num_accepted_tokens_total[15m]))"
        " / sum by (instance) (rate(vllm:spec_decode_num_draft_tokens_total[15m])) < {break_even}"
        f" and sum by (instance) (increase(vllm:spec_decode_num_drafts_total[15m])) > {MIN_DRAFTS}",
        duration="15m",
        summary="too few drafted tokens are accepted for the drafter to pay: decoding is faster without it",
        command="deckard-deploy status --name {name}; then the `up` that it was started with, and --drafter none",
    ),
    Alert(
        name="FirstTokenSlow",
        severity="warning",
        query="histogram_quantile(0.95,"
        " sum by (instance, le) (rate(vllm:time_to_first_token_seconds_bucket[10m])))"
        f" > {SLOW_FIRST_TOKEN_S}",
        duration="10m",
        summary=f"one request in twenty waits longer than {SLOW_FIRST_TOKEN_S} s for its first token",
        command="deckard-deploy top --name {name}, and see whether requests wait or prompts are long",
    ),
    Alert(
        name="Restarted",
        severity="warning",
        # With several API servers, as of data-parallel ranks, there is no process_start_time_seconds.
        query=f'changes(process_start_time_seconds{{job="{JOB}"}}[15m]) > 0'
        " or sum by (instance, job) (resets(vllm:prompt_tokens_total[15m])) > 0",
        duration="0m",
        summary="the engine has restarted in the last quarter of an hour; what it was answering is lost",
        command="deckard-deploy status --name {name}; deckard-deploy logs --name {name}",
    ),
)


def alert_group(plan: LaunchPlan, names: MetricNames) -> dict[str, Any]:
    """Return the group of a deployment's rules: every alert whose metrics a server of this plan exports."""
    threshold = break_even(plan)
    rules = []
    for alert in ALERTS:
        has_parts = plan.gateway is not None or not alert.needs_gateway
        if has_parts and names.exports_all_of(alert.query, drafter=threshold is not None):
            rules.append(_rule(alert, plan, threshold))
    return {"name": plan.deployment, "rules": rules}


def front_alerts(plan: LaunchPlan) -> dict[str, Any]:
    """Return the group of rules about the front of replicas: those that need no figure of an engine."""
    own = [alert for alert in ALERTS if alert.needs_gateway and "vllm:" not in alert.query]
    return {"name": plan.deployment, "rules": [_rule(alert, plan, None) for alert in own]}


def _rule(alert: Alert, plan: LaunchPlan, threshold: float | None) -> dict[str, Any]:
    limit = "" if threshold is None else f"{threshold:.3f}"
    return {
        "alert": alert.name,
        "expr": of_deployment(alert.query.replace("{break_even}", limit), plan.deployment),
        "for": alert.duration,
        "labels": {"severity": alert.severity, "deployment": plan.deployment},
        "annotations": {
            "summary": f"{plan.deployment}: {alert.summary}",
            "runbook": alert.command.format(name=plan.deployment, profile=plan.profile),
        },
    }
