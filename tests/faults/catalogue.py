"""Every fault that this project survives, from F1 on, with its proofs."""

from collections.abc import Iterator

from tests.faults import docker_faults, host_faults, startup_faults
from tests.faults.fault import Fault
from tests.faults.local_faults import DOWNLOAD_FAULTS

ROOM = Fault(
    "F17",
    "docker's disk is too small for the image",
    "3: needs … bytes (… for the image), and … are free; free … bytes there: before the first byte",
    ("tests/e2e/test_registry.py::test_image_without_disk_space_is_refused",),
    "DID NOT RAISE",
)


def of_a_pull() -> Iterator[Fault]:
    """Yield the faults of a pull, each of which has a case of one test."""
    for case in DOWNLOAD_FAULTS:
        proof = f"tests/unit/weights/test_pull_faults.py::test_fault_is_survived[{case.number}]"
        yield Fault(case.number, case.fault, case.said, (proof,), case.otherwise, case.instead)


def place(fault: Fault) -> tuple[int, str]:
    """Return the number and the letter to sort by."""
    return int(fault.number[1:].rstrip("abc")), fault.number


FAULTS = tuple(
    sorted(
        (*of_a_pull(), ROOM, *startup_faults.FAULTS, *docker_faults.FAULTS, *host_faults.FAULTS), key=place
    )
)
