"""The catalogue of faults: python -m tests.campaigns.faults [PASSES] [FAULT ...], as root, with docker and gcc.

Each pass runs every first proof as it is, and again in a checkout that lacks its guard; a line of result each. CI runs
the proofs, and a few without their guards. Takes minutes a pass.
"""

import argparse
import re
import signal
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tests.faults.catalogue import FAULTS
from tests.faults.fault import CHECKOUT, Fault, fail_without_guard, run_tests

AT_ONCE = 2


def run(passes: int, numbers: list[str]) -> int:
    chosen = [
        fault
        for fault in FAULTS
        if not numbers or fault.number.rstrip("abc") in numbers or fault.number in numbers
    ]
    wrong = 0
    for number in range(1, passes + 1):
        began = time.monotonic()
        found = one_pass(chosen)
        for fault, (survived, without) in zip(chosen, found, strict=True):
            wrong += not (survived and without.startswith("fails"))
            print(
                f"{fault.number:4} {'survived' if survived else 'NOT SURVIVED'}: {fault.said}; without: {without}"
            )
        print(
            f"pass {number} of {passes}: {len(chosen)} rows, {wrong} wrong so far, {time.monotonic() - began:.0f} s"
        )
        sys.stdout.flush()
    return 1 if wrong else 0


def one_pass(faults: list[Fault]) -> list[tuple[bool, str]]:
    """Return for each fault if its first proof passes, and the result without the guard."""
    passed = proven({fault.proofs[0] for fault in faults})
    with ThreadPool(AT_ONCE) as pool:
        return list(
            zip(
                [fault.proofs[0] in passed for fault in faults],
                pool.map(off, faults, chunksize=1),
                strict=True,
            )
        )


def proven(proofs: set[str]) -> set[str]:
    """Return the proofs of which every case passes; a skipped case proves nothing."""
    done = run_tests(CHECKOUT, "-rA", "--tb=short", *sorted(proofs))
    cases = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) (\S.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    bad = {
        proof for proof in proofs for result, case in cases if result != "PASSED" and case.startswith(proof)
    }
    good = {
        proof for proof in proofs for result, case in cases if result == "PASSED" and case.startswith(proof)
    }
    if good - bad != proofs:
        print(done.stdout[-6000:])
    return good - bad


def off(fault: Fault) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return f"fails: {fail_without_guard(fault, Path(folder))!r}"
        except AssertionError as error:
            return f"WRONG: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("passes", type=int, nargs="?", default=3)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="F18, or F18a; all where none is named")
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup each guard of SIGHUP would look unneeded (F57)
    sys.exit(run(options.passes, options.faults))


if __name__ == "__main__":
    main()
