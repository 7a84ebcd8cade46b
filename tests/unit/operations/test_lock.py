"""`lock`: a choice resolved now, next to the lock in a file."""

from pathlib import Path

import pytest

from deckard_deploy.operations.lock import resolve_lock, write_lock
from deckard_deploy.operations.options import Choice
from deckard_deploy.patching import plugin
from deckard_deploy.weights import lockfile
from tests.support.hub_server import COMMIT, Hub
from tests.support.recording_reporter import RecordingReporter

DIGEST = "sha256:" + "d" * 64
IMAGE, GATEWAY = f"example.org/vllm:v1@{DIGEST}", f"example.org/nginx:v1@{DIGEST}"
SETTINGS = (f"image={IMAGE}", f"gateway_image={GATEWAY}")
SPARK = Choice(profile="spark", settings=(*SETTINGS, "engine=vllm-0.19.1"))


@pytest.mark.usefixtures("hub")
def test_resolved_lock_is_not_written(tmp_path: Path, report: RecordingReporter) -> None:
    update = resolve_lock(SPARK, None, report)
    assert update.path == lockfile.DEFAULT_PATH
    assert update.lock.models["deckard-31b"].commit == COMMIT
    assert update.lock.images == {IMAGE: DIGEST, GATEWAY: DIGEST}
    assert update.differences
    assert not (tmp_path / "deckard.lock").exists()


@pytest.mark.usefixtures("hub")
def test_written_lock_has_no_differences(tmp_path: Path, report: RecordingReporter) -> None:
    file = tmp_path / "other.lock"
    write_lock(resolve_lock(SPARK, file, report))
    assert resolve_lock(SPARK, file, report).differences == []


def test_lock_keeps_other_deployments(hub: Hub, tmp_path: Path, report: RecordingReporter) -> None:
    file = tmp_path / "other.lock"
    write_lock(resolve_lock(SPARK, file, report))
    other = Choice(profile="spark", settings=(*SETTINGS, "engine=vllm-0.33.0"))
    update = resolve_lock(other, file, report)
    assert update.lock.models.keys() == {"deckard-31b", "gemma-4-31b-assistant"}
    assert update.lock.patches.keys() == {"vllm-0.19.1"}
    assert update.lock.plugins == {"nvfp4-awq": plugin.wheel_sha256("nvfp4-awq")}
    assert hub.ranges == []
