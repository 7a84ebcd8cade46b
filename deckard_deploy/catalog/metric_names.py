"""What one vLLM release exports on /metrics: names, types and labels.

The JSON files under metrics/ are written by scripts/extract_metrics.py from a real server's page. No dashboard, rule or
query names a metric that is not in them.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

# A metric of the page in a PromQL expression; names are as in Prometheus's data model: [a-zA-Z_:][a-zA-Z0-9_:]*.
_IN_QUERY = re.compile(r"\b(?:vllm:|process_|http_)[a-zA-Z0-9_:]+")
_OF_HISTOGRAMS = re.compile("_(bucket|sum|count)$")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric; `needs` is what a server must have for it to be on the page."""

    type: str
    labels: tuple[str, ...]
    needs: Literal["drafter"] | None = None


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """The metrics of one release, by the name that a query uses; a histogram's is the one before _bucket."""

    vllm_version: str
    metrics: dict[str, Metric]

    def find(self, name: str) -> Metric | None:
        """The metric behind the name of a sample; None when this release exports none."""
        base = _OF_HISTOGRAMS.sub("", name)
        found = self.metrics.get(base)
        return (
            found
            if found and found.type in ("histogram", "summary") and base != name
            else self.metrics.get(name)
        )

    def has_all_of(self, query: str, *, drafter: bool) -> bool:
        """Whether a server of this release, with or without a drafter, exports everything that a query names."""
        found = [self.find(name) for name in names_in(query)]
        return all(metric and (drafter or metric.needs is None) for metric in found)


def names_in(query: str) -> list[str]:
    """The names of vLLM's samples in a PromQL expression."""
    return _IN_QUERY.findall(query)


@cache
def metric_names(name: str) -> MetricNames:
    """The committed list of that name, for example `vllm-0.19.1`. Raises BadInputError when there is none."""
    path = catalog_dir() / "metrics" / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.json")))
        raise BadInputError(f"nobody has listed the metrics of {name}; known: {known}")
    data = json.loads(path.read_text("utf-8"))
    metrics = {
        key: Metric(type=entry["type"], labels=tuple(entry["labels"]), needs=entry.get("needs"))
        for key, entry in data["metrics"].items()
    }
    return MetricNames(vllm_version=data["vllm_version"], metrics=metrics)
