"""Pulls under the limits of a shell: the size of a file, and the number of open files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Hub, content, running
from tests.support.pull_sandbox import BIG, PullSandbox


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PullSandbox]:
    with running(Hub({"config.json": b'{"a": 1}\n', BIG: content(2_000_001)})) as served:
        yield PullSandbox(served, tmp_path)


@pytest.mark.parametrize(
    ("limit", "said"), [("fsize=1000000", "File too large"), ("nofile=7", "Too many open files")]
)
def test_pull_names_ulimit_and_resumes_without_it(site: PullSandbox, limit: str, said: str):
    site.wrapper = ["prlimit", f"--{limit}"]
    found = site.pull()
    assert found.names(3, said, "ulimit -"), found
    assert BIG not in found.files
    site.wrapper = []
    assert site.pull().code == 0
    assert site.is_right(), "the files are not right"
