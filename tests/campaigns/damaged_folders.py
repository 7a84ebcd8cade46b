"""Damaged and foreign model folders through `plan`: python -m tests.campaigns.damaged_folders [COUNT] [--from SEED].

Prints each result that is neither a plan nor one line of error, and the number of each exit code. CI runs 60.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from deckard_deploy.rehearsal import gemma4
from tests.support.damaged_folders import damaged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--from", dest="first", type=int, default=1000)
    options = parser.parse_args()
    codes: Counter[int] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        sound = gemma4.write(Path(scratch) / "sound", quantization="nvfp4_awq")
        for seed in range(options.first, options.first + options.count):
            result = damaged(sound, seed)
            codes[result.code] += 1
            if result.fault:
                faults += 1
                print(f"seed {seed}, {result.damage}: {result.fault}: {result.said[-300:]}")
    print(f"{options.count} folders, {faults} faults; exit codes: {dict(sorted(codes.items()))}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
