"""The truth table, 40 behaviours of a server each: python -m tests.campaigns.start_outcomes [SEEDS]. CI runs a few."""

import argparse
import sys

from tests.support.start_outcomes import table


def run(seeds: int) -> None:
    cases = table(range(1, seeds + 1))
    wrong = [one for one in cases if not one.true]
    for one in wrong:
        print(
            f"{one.behaviour.name}, seed {one.seed}: {one.verdict}, not {one.behaviour.verdict}: {one.said}"
        )
    crashes = [one.after_s for one in cases if one.behaviour.turns]
    false_ready = sum(one.verdict == "ready" for one in wrong)
    false_failed = sum(one.behaviour.verdict == "ready" for one in wrong)
    print(
        f"{len(cases)} cases: {false_ready} false ready, {false_failed} false failed, {len(wrong)} wrong in all"
    )
    print(f"a crash was reported after {max(crashes):.2f} s at most")
    sys.exit(bool(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=25)
    run(parser.parse_args().seeds)


if __name__ == "__main__":
    main()
