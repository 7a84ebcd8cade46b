"""Every fault that this project is held to survive, F1 to F60, with its proofs and its guard."""

from collections.abc import Iterator

from tests.faults import of_a_start, of_docker, of_the_host
from tests.faults.fault import Fault, Guard
from tests.unit.weights.fault_cases_here import CASES

ROOM = Fault(
    "F17",
    "docker's disk is too small for the image",
    "3: needs … bytes (… for the image), and … are free; free … bytes there: before the first byte",
    ("tests/e2e/test_registry.py::test_an_image_that_does_not_fit_is_refused_before_its_first_byte",),
    Guard("operations/disk_space.py", "        if size > free:\n", "        if False:\n"),
    "DID NOT RAISE",
)
NUMBERS = [case.number for case in CASES]


def of_a_pull() -> Iterator[Fault]:
    """Each has a test of its own; where a fault has several, pytest counts them."""
    for place, case in enumerate(CASES):
        several = f"_{NUMBERS[:place].count(case.number)}" if NUMBERS.count(case.number) > 1 else ""
        proof = f"tests/unit/weights/test_faults.py::test_fault_is_survived[{case.number}{several}]"
        guard = Guard(case.module, case.guard, case.instead)
        yield Fault(case.number, case.fault, case.said, (proof,), guard, case.otherwise)


OF_A_PULL = tuple(of_a_pull())
OTHERS = (ROOM, *of_a_start.FAULTS, *of_docker.FAULTS, *of_the_host.FAULTS)
FAULTS = tuple(sorted((*OF_A_PULL, *OTHERS), key=lambda fault: int(fault.number[1:])))
