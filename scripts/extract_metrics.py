#!/usr/bin/env python3
"""Write the metrics that one vLLM release exports to deckard_deploy/catalog/metrics/vllm-<version>.json.

Run it with the Python of an environment that has that release, beside a server of it that has answered something:

    VENV/bin/python scripts/extract_metrics.py http://127.0.0.1:8000/metrics

The page is the server's own. A server without a drafter has none of the drafter's metrics, and 0.19.1 has no drafter on
a CPU (v1/worker/cpu_model_runner.py:26), so the release's own class for them (v1/spec_decode/metrics.py) adds its page,
with four positions and one draft. The page itself, without help texts, times of creation and Python's own metrics, goes
to tests/unit/measuring/pages/vllm-<version>.txt.
"""

import json
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prometheus_client
import vllm  # type: ignore[import-not-found]
from prometheus_client.parser import text_string_to_metric_families
from vllm.v1.spec_decode.metrics import SpecDecodingProm, SpecDecodingStats  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = {"counter": "_total"}  # the parser takes it off a counter's family
DRAFTERS = "vllm:spec_decode"
ADDED = {"le"}  # a bucket's own label


def drafter_page() -> str:
    """Return the page of the release's own class after one draft of four tokens of which two were accepted."""
    exported = SpecDecodingProm(
        SimpleNamespace(num_speculative_tokens=4), ["model_name", "engine"], {0: ["m", "0"]}
    )
    stats = SpecDecodingStats.new(4)
    stats.observe_draft(num_draft_tokens=4, num_accepted_tokens=2)
    exported.observe(stats)
    page = prometheus_client.generate_latest().decode()
    return "".join(line + "\n" for line in page.splitlines() if DRAFTERS in line)


def trimmed(page: str) -> str:
    """Return the page without unused metrics."""
    lines = [line for line in page.splitlines() if not line.startswith("# HELP")]
    unwanted = ("python_", "# TYPE python_")
    return "".join(f"{line}\n" for line in lines if not line.startswith(unwanted) and "_created" not in line)


def metrics(page: str) -> dict[str, dict[str, Any]]:
    """Return name in a query -> type, labels, and the condition under which a server exports it.

    A histogram's name is the one before _bucket, _sum and _count.
    """
    found = {}
    for family in text_string_to_metric_families(page):
        labels = {label for sample in family.samples for label in sample.labels}
        entry: dict[str, Any] = {"type": family.type, "labels": sorted(labels - ADDED)}
        needs = {"needs": "drafter"} if family.name.startswith(DRAFTERS) else {}
        found[family.name + SUFFIX.get(family.type, "")] = entry | needs
    return found


def main() -> None:
    """Run the command line."""
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:  # noqa: S310  the caller's own address
        served = trimmed(answer.read().decode())
    release = vllm.__version__.partition("+")[0]
    page = served if DRAFTERS in served else served + trimmed(drafter_page())
    found = {"vllm_version": release, "metrics": metrics(page)}
    data = ROOT / "deckard_deploy" / "catalog" / "metrics" / f"vllm-{release}.json"
    fixture = ROOT / "tests" / "unit" / "measuring" / "pages" / f"vllm-{release}.txt"
    for path, text in ((data, json.dumps(found, indent=1, sort_keys=True) + "\n"), (fixture, page)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
