"""A pull survives every fault, with one line and a next command, and does not without its guard."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.download_faults import DownloadFault
from tests.faults.local_faults import DOWNLOAD_FAULTS, on_tmpfs
from tests.support.hub_server import Hub, content, running
from tests.support.pull_sandbox import BIG, PullSandbox, package_without

pytestmark = pytest.mark.slow  # real processes or servers, and their waits

MOUNTED = subprocess.run(
    [*on_tmpfs(Path(__file__).parent, "size=1m"), "true"], capture_output=True, check=False
)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[PullSandbox]:
    served = Hub({"config.json": b'{"a": 1}\n', BIG: content(2_000_001), "tool.py": b"print()\n"})
    with running(served):
        yield PullSandbox(served, tmp_path)


def named(case: DownloadFault) -> object:
    needs_mount = MOUNTED.returncode and case.number in ("F16", "F18a", "F18b", "F18c")
    marks = [pytest.mark.skip(reason=MOUNTED.stderr.decode())] if needs_mount else []
    return pytest.param(case, id=case.number, marks=marks)


@pytest.mark.parametrize("case", [named(case) for case in DOWNLOAD_FAULTS])
def test_fault_is_survived(case: DownloadFault, sandbox: PullSandbox):
    case.scenario(sandbox)


@pytest.mark.slow
@pytest.mark.parametrize("case", [named(case) for case in DOWNLOAD_FAULTS])
def test_fault_is_not_survived_without_guard(case: DownloadFault, sandbox: PullSandbox, tmp_path: Path):
    sandbox.package = package_without(tmp_path / "unguarded", case.number, case.instead)
    with pytest.raises(AssertionError) as caught:
        case.scenario(sandbox)
    assert case.otherwise in str(caught.value)


def test_cases_are_f1_to_f20_without_f17():
    assert {case.number.rstrip("abc") for case in DOWNLOAD_FAULTS} == {
        f"F{number}" for number in range(1, 21)
    } - {"F17"}
