#!/usr/bin/env python3
"""Print the changes between two vLLM releases' option schemas, and mark those that affect a profile.

python scripts/compare_engines.py vllm-0.19.1 vllm-0.32.0

A line that begins with `!` is something that a built-in profile or model sets, or whose default it relies on, and that
schemas/NEW.changes.yaml has no answer to; then the exit code is 1. To add a release: install it somewhere, run
scripts/extract_option_schema.py with its Python, then this, answer in the .changes.yaml, and write the engine's file.
"""

import sys

from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.release_difference import compared
from deckard_deploy.catalog.translation import release_changes


def main() -> int:
    """Run the command line; returns the exit code."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    old, new = sys.argv[1:]
    lines = list(compared(option_schema(old), option_schema(new), release_changes(new)))
    for answered, line in lines:
        print(f"{' ' if answered else '!'} {line}")
    open_lines = sum(not answered for answered, _ in lines)
    print(f"{len(lines)} changes, {open_lines} without an answer", file=sys.stderr)
    return 1 if open_lines else 0


if __name__ == "__main__":
    sys.exit(main())
