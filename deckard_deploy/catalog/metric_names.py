"""The names, types and labels of the metrics that one vLLM release exports on /metrics.

scripts/extract_metrics.py writes the JSON files under metrics/ from the page of a real server. Dashboards,
rules and queries name no other metrics.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

# A metric of vLLM in a PromQL expression; names as in Prometheus's data model: [a-zA-Z_:][a-zA-Z0-9_:]*.
_METRIC_NAME = re.compile(r"\b(?:vllm:|process_|http_)[a-zA-Z0-9_:]+")
# What a selector may begin with: a metric of vLLM or of nginx, or a series of Prometheus's own.
_SELECTOR = re.compile(r"\b(?:(?:vllm:|process_|http_|deckard_)[a-zA-Z0-9_:]+|up|ALERTS)\b(\{?)")
_HISTOGRAM_SUFFIX = re.compile("_(bucket|sum|count)$")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. needs: without it a server does not export the metric."""

    type: str
    labels: tuple[str, ...]
    needs: Literal["drafter"] | None = None


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """The metrics of one release by name; a histogram's name ends before _bucket."""

    vllm_version: str
    metrics: dict[str, Metric]

    def find(self, name: str) -> Metric | None:
        """Return the metric of a sample's name; None when this release exports no such metric."""
        base = _HISTOGRAM_SUFFIX.sub("", name)
        metric = self.metrics.get(base)
        if metric and base != name and metric.type in ("histogram", "summary"):
            return metric
        return self.metrics.get(name)

    def exports_all_of(self, query: str, *, drafter: bool) -> bool:
        """Return True if a server with or without a drafter exports every metric that the query names."""
        for name in names_in_query(query):
            metric = self.find(name)
            if metric is None or (metric.needs == "drafter" and not drafter):
                return False
        return True


def names_in_query(query: str) -> list[str]:
    """Return the names of vLLM's samples in a PromQL expression."""
    return _METRIC_NAME.findall(query)


def of_deployment(query: str, deployment: str) -> str:
    """Return the query for the series of one deployment alone: one Prometheus may have those of several."""

    def select(found: re.Match[str]) -> str:
        name = found[0].removesuffix("{")
        matcher = f'{{deployment="{deployment}"'
        return name + matcher + ("," if found[1] else "}")

    return _SELECTOR.sub(select, query)


@cache
def metric_names(name: str) -> MetricNames:
    """Return the committed list of that name, for example `vllm-0.19.1`. Raises BadInputError without one."""
    path = catalog_dir() / "metrics" / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.json")))
        raise BadInputError(f"the metrics of {name} are not listed; known: {known}")
    data = json.loads(path.read_text("utf-8"))
    metrics = {}
    for key, entry in data["metrics"].items():
        metrics[key] = Metric(type=entry["type"], labels=tuple(entry["labels"]), needs=entry.get("needs"))
    return MetricNames(vllm_version=data["vllm_version"], metrics=metrics)
