"""A hub, a deployment with real processes, and a reporter that keeps its lines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_deployment import FakeDeployment
from tests.support.model_hub import hub
from tests.support.recording_reporter import RecordingReporter

__all__ = ["hub"]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDeployment]:
    """Yield a deployment named `box`. Its processes are ended after the test."""
    deployment = FakeDeployment(tmp_path)
    yield deployment
    deployment.end()


@pytest.fixture
def report() -> RecordingReporter:
    """Return a reporter that keeps its lines."""
    return RecordingReporter()
