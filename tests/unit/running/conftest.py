"""A deployment with real processes, ended after the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_deployment import FakeDeployment


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDeployment]:
    deployment = FakeDeployment(tmp_path)
    yield deployment
    deployment.end()
