"""`down`: what it stops, and what `--purge` removes."""

from pathlib import Path

import pytest

from deckard_deploy.operations.down import run
from deckard_deploy.operations.options import Selection
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter

ENGINE, MODEL = "vllm-0.19.1-cpu", "tiny-gemma4"


def test_down_stops_processes_and_keeps_release(fake: FakeDeployment, report: RecordingReporter) -> None:
    release = fake.proven(fake.plan())
    run(Selection(fake.state.root), report)
    assert fake.processes() == []
    assert fake.releases.current() == release
    run(Selection(fake.state.root), report)
    assert report.lines == ["box is stopped", "box was not running"]


def test_dry_run_stops_nothing(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    run(Selection(fake.state.root), report, dry_run=True)
    assert report.lines == ["would stop box, which is running"]
    run(Selection(fake.state.root), report, purge=True, dry_run=True)
    assert report.lines[1:] == [
        "would stop box, which is running",
        "would remove releases and logs of box",
        "would remove engines, patches, caches and generated models",
    ]
    assert fake.names()


@pytest.mark.parametrize("shared", [False, True], ids=["own folders", "behind links"])
def test_purge_removes_nothing_behind_a_link(
    fake: FakeDeployment, report: RecordingReporter, tmp_path: Path, *, shared: bool
) -> None:
    fake.stored(fake.plan())
    root = fake.state.root
    folders = [root / "engines" / ENGINE / "bin", root / "models" / MODEL]
    folders.append(root / "engines" / "modelopt-0.47.0-cpu" / "bin")
    if shared:
        for name in ("engines", "models"):
            (tmp_path / name).mkdir()
            (root / name).symlink_to(tmp_path / name)
    for folder in folders:
        folder.mkdir(parents=True)
    lock = root / "engines" / f".{ENGINE}.lock"
    lock.touch()
    (root / "engines" / ".modelopt-0.47.0-cpu.lock").touch()
    run(Selection(root), report, purge=True)
    assert [folder.exists() for folder in folders] == [shared, shared, shared]
    assert lock.exists() is shared
    assert not fake.deployment.folder.exists()
    kept = [line for line in report.lines if "other state directories may use it" in line]
    assert len(kept) == 2 * shared
