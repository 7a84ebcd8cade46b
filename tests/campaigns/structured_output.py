"""Random JSON schemas against a deployment: python -m tests.campaigns.structured_output ENGINES ENGINE.

ENGINES: a folder with the engine, for example vllm-0.19.1-cpu, as a state directory has it. `up` starts it with a tiny
Gemma 4, so that patches, plugin, filter, settings and gateway are those of the product. Each schema is asked for four
times: with thinking and without, streamed and whole. Prints the counts, each answer that is wrong, and each reason of a
refusal. Exits with 1 if fewer than 95 % are valid, a cut answer does not begin a document, or a refusal has a reason
that is not listed here. CI asks for twelve schemas (tests/e2e/test_structured_output.py).
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from deckard_deploy.rehearsal import gemma4
from tests.campaigns.compare import Tool
from tests.e2e.random_schemas import Result, judged, schemas, table
from tests.e2e.structured_requests import MODEL
from tests.support.ports import free_port

ENOUGH = 0.95
NAME = "structured"
# vLLM 0.19.1 v1/structured_output/backend_xgrammar.py, validate_xgrammar_grammar
LISTED = ("contains features not supported by xgrammar",)


def report(results: list[Result]) -> bool:
    """Print what came, and return whether it is enough."""
    for (thinking, stream), counts in table(results).items():
        print(f"thinking {thinking!s:5} stream {stream!s:5} {dict(counts)}")
    for one in results:
        if one.verdict in ("wrong", "no prefix"):
            print(f"{one.verdict}: {one.schema} -> {one.text[:200]!r}")
    refused = Counter(one.text[:200] for one in results if one.verdict == "refused")
    for reason, count in refused.items():
        print(f"refused {count} times: {reason}")
    counts = Counter(one.verdict for one in results)
    share = counts["valid"] / len(results)
    print(f"{len(results)} answers: {dict(counts)}; {share:.1%} valid")
    listed = all(any(words in reason for words in LISTED) for reason in refused)
    return share >= ENOUGH and not counts["no prefix"] and listed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", type=Path)
    parser.add_argument("engine", choices=("vllm-0.19.1-cpu", "vllm-0.32.0-cpu"))
    parser.add_argument("--family", choices=("large", "small"), default="small")
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="structured-") as name:
        folder, port = Path(name), free_port()
        checkpoint = gemma4.write(folder / MODEL, family=arguments.family)
        tool = Tool(folder, arguments.engines.resolve())
        chosen = (
            "--profile",
            "cpu",
            "--engine",
            arguments.engine,
            "--model",
            str(checkpoint),
            "--name",
            NAME,
        )
        try:
            tool("up", *chosen, "--port", str(port), "--set", "gateway=nginx")
            began = time.monotonic()
            results = list(judged(f"http://127.0.0.1:{port}", schemas(arguments.schemas, arguments.seed)))
            print(f"{time.monotonic() - began:.0f} s")
        finally:
            tool("down", "--name", NAME, "--purge", check=False)
    sys.exit(not report(results))


if __name__ == "__main__":
    main()
