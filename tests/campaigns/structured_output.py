"""Random JSON schemas against a real engine: python -m tests.campaigns.structured_output ENGINE_PYTHON.

Each schema is asked for four times: with thinking and without, streamed and whole. --patched: with the patches of
vLLM 0.19.1, as a deployment has them. Prints the counts, each answer that is wrong, and each reason of a refusal. Exits
with 1 if fewer than 95 % are valid. CI asks for twelve schemas (tests/e2e/test_structured_output.py).
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from deckard_deploy.rehearsal import gemma4
from tests.e2e import patched
from tests.e2e.random_schemas import Result, judged, schemas, table
from tests.e2e.structured_requests import engine

ENOUGH = 0.95


def report(results: list[Result]) -> bool:
    """Print what came, and return whether it is enough."""
    for (thinking, stream), counts in table(results).items():
        print(f"thinking {thinking!s:5} stream {stream!s:5} {dict(counts)}")
    for one in results:
        if one.verdict == "wrong":
            print(f"wrong: {one.schema} -> {one.text[:200]!r}")
    refused = Counter(one.text[:200] for one in results if one.verdict == "refused")
    for reason, count in refused.items():
        print(f"refused {count} times: {reason}")
    counts = Counter(one.verdict for one in results)
    share = counts["valid"] / len(results)
    print(f"{len(results)} answers: {dict(counts)}; {share:.1%} valid")
    return share >= ENOUGH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="of the engine's environment")
    parser.add_argument("--patched", action="store_true")
    parser.add_argument("--family", choices=("large", "small"), default="small")
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = gemma4.write(folder / "tiny", family=arguments.family)
        overlay = patched.make_overlay(arguments.python, folder / "patched") if arguments.patched else None
        with engine(arguments.python, checkpoint, overlay) as url:
            enough = report(list(judged(url, schemas(arguments.schemas, arguments.seed))))
    sys.exit(not enough)


if __name__ == "__main__":
    main()
