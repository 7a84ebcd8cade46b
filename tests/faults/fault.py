"""A fault of the catalogue, and how its tests are run: as they are, and in a checkout that lacks the guard."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
# Compiled files come too: Python sees by size and time which are stale.
NOT_COPIED = shutil.ignore_patterns(".*")
TIMEOUT_S = 600


class Guard(NamedTuple):
    """What keeps the fault from doing harm: text that stands once in a file of the package, and what to put there."""

    module: str
    text: str
    instead: str


class Fault(NamedTuple):
    """`said` is what a user reads or sees. `proofs` are pytest's names of the tests that show it.

    The first of them is run again without the guard, and must then fail with `otherwise` in what it prints.
    """

    number: str
    fault: str
    said: str
    proofs: tuple[str, ...]
    guard: Guard
    otherwise: str


def file_of(proof: str) -> str:
    """The file in which a test stands."""
    return proof.partition("::")[0]


def checkout_without(guard: Guard, root: Path) -> Path:
    """A copy of this checkout in `root` without the guard. Raises AssertionError unless it stands there once."""
    copy = root / "checkout"
    shutil.copytree(CHECKOUT, copy, ignore=NOT_COPIED)
    path = copy / "deckard_deploy" / guard.module
    source = path.read_text(encoding="utf-8")
    assert source.count(guard.text) == 1, f"{guard.module}: {guard.text!r} is not there once"
    path.write_text(source.replace(guard.text, guard.instead), encoding="utf-8")
    return copy


def run_tests(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in that checkout, with its package in front of the installed one, also for programs that tests start."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def without_guard(fault: Fault, root: Path) -> str:
    """What the first proof says without the guard. Raises AssertionError when it passes, or fails in another way."""
    done = run_tests(checkout_without(fault.guard, root), "--exitfirst", "--tb=short", fault.proofs[0])
    assert done.returncode == 1, (
        f"{fault.number}: exit {done.returncode} without its guard\n{done.stdout[-2000:]}"
    )
    assert fault.otherwise in done.stdout, f"{fault.number} fails in another way\n{done.stdout[-4000:]}"
    return fault.otherwise
