"""The catalogue is whole: every proof is a test that exists, every mark stands in the package exactly once.

tests/campaigns/faults.py runs every first proof with its guard and without; here a few are run without.
"""

from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.fault import CHECKOUT, Fault, fail_without_guard, file_of, run_tests
from tests.faults.guards import marks, without_guard

# One of each kind; tests/unit/weights/test_pull_faults.py runs all of a pull without their guards.
SLICE = [fault for fault in FAULTS if fault.number in ("F29", "F45", "F59")]
PACKAGE = CHECKOUT / "deckard_deploy"
ABSENT = "tests/unit/system/test_ports.py::test_that_is_none"


def test_every_proof_exists():
    """The id that does not exist is reported, and no other."""
    proofs = {proof for fault in FAULTS for proof in fault.proofs}
    done = run_tests(CHECKOUT, "--collect-only", ABSENT, *sorted(proofs))
    missing = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    assert (done.returncode, len(missing), ABSENT in missing[0]) == (4, 1, True), done.stdout + done.stderr


def test_catalogue_has_no_gap():
    numbers = {int(fault.number[1:].rstrip("abc")) for fault in FAULTS}
    assert numbers == set(range(1, max(numbers) + 1))
    assert len({fault.number for fault in FAULTS}) == len(FAULTS)


def test_every_mark_has_one_fault():
    assert sorted(mark for mark, _ in marks(PACKAGE)) == sorted(fault.number for fault in FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.number)
def test_guard_can_be_taken_away(fault: Fault):
    (path,) = [path for mark, path in marks(PACKAGE) if mark == fault.number]
    source = path.read_text(encoding="utf-8")
    assert without_guard(source, fault.number, fault.instead) != source
    assert fault.otherwise
    assert all(file_of(proof).startswith("tests/") for proof in fault.proofs)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SLICE, ids=lambda fault: fault.number)
def test_fault_is_fatal_without_guard(fault: Fault, tmp_path: Path):
    fail_without_guard(fault, tmp_path)
