"""The cost of measuring through the tool: runs of `bench` and of `vllm bench serve` by hand, in turn.

    python -m tests.campaigns.bench --server http://127.0.0.1:8000 --served-name NAME --model FOLDER \\
        --python PYTHON > runs.json

PYTHON is one that can import vLLM, with `vllm` beside it. A pair is a run of each, now the one first, now the other,
with prompts of their own but the same lengths. After --seconds it ends, says what `bench compare` says of pairs, and
writes {concurrency: {"tool": [tok/s, …], "hand": [tok/s, …]}}.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, stdev

from deckard_deploy.measuring.comparison import compare_pairs
from deckard_deploy.measuring.engine_bench import Bench, Endpoint, bench_options, benchmark_worker
from deckard_deploy.measuring.sweep import measure_run
from deckard_deploy.measuring.workload import Settings

Found = dict[int, dict[str, list[float]]]


def by_hand(endpoint: Endpoint, settings: Settings, concurrency: int) -> float:
    """The command line that `bench --dry-run` prints, run as a person would; output tokens per second."""
    arguments = settings.arguments(concurrency, concurrency * settings.requests, secrets.randbits(31))
    with tempfile.TemporaryDirectory() as folder:
        saved = ("--save-result", "--result-dir", folder, "--result-filename", "hand.json")
        vllm = str(Path(endpoint.python[0]).with_name("vllm"))
        command = [vllm, "bench", "serve", *bench_options(endpoint, arguments), *saved]
        subprocess.run(command, env=dict(endpoint.environment), check=True, capture_output=True)
        return float(json.loads((Path(folder) / "hand.json").read_text())["output_throughput"])


def pairs(bench: Bench, settings: Settings, deadline: float) -> Found:
    """One pair of each concurrency after the other, until the time is over."""
    found: Found = {number: {"tool": [], "hand": []} for number in settings.concurrency}
    turn = 0
    while time.monotonic() < deadline:
        for number, sides in found.items():
            requests = number * settings.requests
            for side in ("tool", "hand") if turn % 2 else ("hand", "tool"):
                if side == "tool":
                    speed = measure_run(
                        bench, settings, number, requests=requests, seed=secrets.randbits(31)
                    ).tokens_per_s
                else:
                    speed = by_hand(bench.endpoint, settings, number)
                sides[side].append(speed)
            print(number, turn, sides["tool"][-1], sides["hand"][-1], file=sys.stderr, flush=True)
        turn += 1
    return found


def main() -> None:
    """Measure in turn, so that what else the machine does falls on both alike."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--server", "--served-name", "--model", "--python"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--concurrency", default="1,4")
    options = parser.parse_args()
    numbers = tuple(map(int, options.concurrency.split(",")))
    settings = Settings(workload="random", output_tokens=64, input_tokens=64, requests=4, concurrency=numbers)
    endpoint = Endpoint(
        server=options.server,
        served_name=options.served_name,
        model=options.model,
        python=(options.python,),
        environment=dict(os.environ),
    )
    deadline = time.monotonic() + options.seconds
    with benchmark_worker(endpoint) as bench:
        for number in numbers:  # whoever comes first would otherwise warm the server for both
            measure_run(bench, settings, number, requests=number, seed=secrets.randbits(31))
        found = pairs(bench, settings, deadline)
    for number, sides in found.items():
        said = ", ".join(f"{side} {median(all_):.1f} ± {stdev(all_):.1f}" for side, all_ in sides.items())
        print(f"{number} at once, {len(sides['tool'])} pairs: {said} tok/s", file=sys.stderr)
    ratio = compare_pairs(
        *({number: sides[side] for number, sides in found.items()} for side in ("hand", "tool"))
    )
    for name, row in (*((str(number), row) for number, row in ratio.rows.items()), ("all", ratio.overall)):
        interval = f"{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})"
        print(f"{name}: tool over hand {interval}, {row.verdict}", file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
