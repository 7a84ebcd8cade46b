"""The catalogue is whole: every proof is a test that there is, and without its guard a fault is not survived.

scripts/campaign_faults.py runs every one of them, with its guard and without; here a few are run without.
"""

from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.fault import CHECKOUT, Fault, file_of, run_tests, without_guard

# One of each kind; tests/unit/weights/test_faults.py runs all of a pull without their guards.
SLICE = [fault for fault in FAULTS if fault.number in ("F29", "F45", "F59")]
ABSENT = "tests/unit/system/test_ports.py::test_that_is_none"


def test_every_proof_is_a_test():
    """And the one that is none is noticed, and nothing else."""
    proofs = {proof for fault in FAULTS for proof in fault.proofs}
    done = run_tests(CHECKOUT, "--collect-only", ABSENT, *sorted(proofs))
    missing = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    assert (done.returncode, len(missing), ABSENT in missing[0]) == (4, 1, True), done.stdout + done.stderr


def test_all_sixty_are_here():
    assert {fault.number for fault in FAULTS} == {f"F{number}" for number in range(1, 61)}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.number)
def test_its_guard_is_there(fault: Fault):
    assert (CHECKOUT / "deckard_deploy" / fault.guard.module).read_text().count(fault.guard.text) == 1
    assert fault.guard.instead != fault.guard.text
    assert fault.otherwise
    assert all(file_of(proof).startswith("tests/") for proof in fault.proofs)


@pytest.mark.parametrize("fault", SLICE, ids=lambda fault: fault.number)
def test_without_its_guard_it_is_not_survived(fault: Fault, tmp_path: Path):
    without_guard(fault, tmp_path)
