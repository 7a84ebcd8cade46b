#!/usr/bin/env python3
"""What does measuring through the tool cost? Runs of `bench` and of `vllm bench serve` typed by hand, in turn.

scripts/campaign_bench.py --server http://127.0.0.1:8000 --served-name NAME --model FOLDER --python PYTHON > runs.json

PYTHON is one that can import vLLM, with `vllm` beside it.
Writes {concurrency: {"tool": [tok/s, …], "hand": [tok/s, …]}}.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from deckard_deploy.measuring.engine_bench import Endpoint, argv_of, opened
from deckard_deploy.measuring.sweep import one_run
from deckard_deploy.measuring.workload import Settings


def by_hand(endpoint: Endpoint, settings: Settings, concurrency: int) -> float:
    """The command line that `bench --dry-run` prints, run as a person would; output tokens per second."""
    requests = concurrency * settings.requests
    arguments = settings.arguments(concurrency, requests, secrets.randbits(31))
    with tempfile.TemporaryDirectory() as folder:
        saved = ("--save-result", "--result-dir", folder, "--result-filename", "hand.json")
        vllm = str(Path(endpoint.python[0]).with_name("vllm"))
        command = [vllm, "bench", "serve", *argv_of(endpoint, arguments), *saved]
        subprocess.run(command, env=dict(endpoint.environment), check=True, capture_output=True)
        return float(json.loads((Path(folder) / "hand.json").read_text())["output_throughput"])


def main() -> None:
    """Measure in turn, so that what else the machine does falls on both alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--server", "--served-name", "--model", "--python"):
        parser.add_argument(name, required=True)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--concurrency", default="1,4")
    options = parser.parse_args()
    settings = Settings(workload="random", output_tokens=64, input_tokens=64, requests=4)
    endpoint = Endpoint(
        server=options.server,
        served_name=options.served_name,
        model=options.model,
        python=(options.python,),
        environment=dict(os.environ),
    )
    found: dict[str, dict[str, list[float]]] = {}
    with opened(endpoint) as bench:
        for concurrency in map(int, options.concurrency.split(",")):
            pairs = found.setdefault(str(concurrency), {"tool": [], "hand": []})
            for number in range(options.pairs):
                requests = concurrency * settings.requests
                pairs["tool"].append(one_run(bench, settings, concurrency, requests=requests).tokens_per_s)
                pairs["hand"].append(by_hand(endpoint, settings, concurrency))
                print(concurrency, number, pairs["tool"][-1], pairs["hand"][-1], file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
