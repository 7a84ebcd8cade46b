"""Pulls under the limits of a shell: the size of a file, and the number of open files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Hub, content, running
from tests.support.pull_sandbox import BIG, PullSandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[PullSandbox]:
    with running(Hub({"config.json": b'{"a": 1}\n', BIG: content(2_000_001)})) as served:
        yield PullSandbox(served, tmp_path)


@pytest.mark.parametrize(
    ("limit", "said"), [("fsize=1000000", "File too large"), ("nofile=7", "Too many open files")]
)
def test_pull_names_ulimit_and_resumes_without_it(sandbox: PullSandbox, limit: str, said: str):
    sandbox.wrapper = ["prlimit", f"--{limit}"]
    found = sandbox.pull()
    assert found.names(3, said, "ulimit -"), found
    assert BIG not in found.files
    sandbox.wrapper = []
    assert sandbox.pull().code == 0
    assert sandbox.is_right(), "the files are not right"
