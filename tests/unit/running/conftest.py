"""A deployment with real processes, ended after the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_deployment import FakeDeployment


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FakeDeployment]:
    made = FakeDeployment(tmp_path)
    yield made
    made.end()
