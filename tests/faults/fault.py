"""A fault of the catalogue, and how its tests are run: in this checkout, and in a copy without the guard."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.faults.guards import remove_guard

CHECKOUT = Path(__file__).resolve().parents[2]
# Compiled files come too: Python sees by size and time which are stale.
NOT_COPIED = shutil.ignore_patterns(".*")
TIMEOUT_S = 600


class Fault(NamedTuple):
    """`said` is the text that a user reads, or the effect. `proofs` are pytest's names of the tests that show it.

    The guard is the line of the package with the mark `# guard: NUMBER`. The first proof is run again without it, and
    must then fail with `otherwise` in its output. `instead`: see tests/faults/guards.py.
    """

    number: str
    fault: str
    said: str
    proofs: tuple[str, ...]
    otherwise: str
    instead: str | None = None


def file_of(proof: str) -> str:
    """Return the file that a test is in."""
    return proof.partition("::")[0]


def checkout_without(fault: Fault, root: Path) -> Path:
    """Return a copy of this checkout in `root` that lacks the guard. Raises AssertionError unless it has one mark."""
    copy = root / "checkout"
    shutil.copytree(CHECKOUT, copy, ignore=NOT_COPIED)
    remove_guard(copy / "deckard_deploy", fault.number, fault.instead)
    return copy


def run_tests(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in that checkout, with its package before the installed one, also for programs that tests start."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def fail_without_guard(fault: Fault, root: Path) -> str:
    """Return what the first proof prints without the guard. Raises AssertionError unless it fails with `otherwise`."""
    done = run_tests(checkout_without(fault, root), "--exitfirst", "--tb=short", fault.proofs[0])
    assert done.returncode == 1, (
        f"{fault.number}: exit {done.returncode} without its guard\n{done.stdout[-2000:]}"
    )
    assert fault.otherwise in done.stdout, f"{fault.number} fails in another way\n{done.stdout[-4000:]}"
    return fault.otherwise
