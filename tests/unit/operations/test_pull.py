"""`pull`: the folders of the models, and a dry run."""

from pathlib import Path

from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.pull import pull_models
from tests.support.hub_server import Hub
from tests.support.model_hub import BIG
from tests.support.recording_reporter import RecordingReporter

SPARK = Choice(profile="spark", settings=("drafter=deckard-e4b",))


def test_pull_yields_folders_and_reports_bytes(hub: Hub, tmp_path: Path, report: RecordingReporter) -> None:
    folders = list(pull_models(SPARK, tmp_path, report))
    assert folders == [tmp_path / "models" / name for name in ("deckard-31b", "deckard-e4b")]
    assert all((folder / BIG).read_bytes() == hub.files[BIG] for folder in folders)
    assert (
        "weights  deckard-31b is complete and right; files of 300,009 bytes were not there yet"
        in report.lines
    )
    report.lines.clear()
    list(pull_models(SPARK, tmp_path, report))
    assert "weights  deckard-e4b is complete and right; files of 0 bytes were not there yet" in report.lines


def test_dry_run_fetches_nothing(hub: Hub, tmp_path: Path, report: RecordingReporter) -> None:
    list(pull_models(SPARK, tmp_path, report, dry_run=True))
    assert report.lines == [
        f"would    check or fetch 2 files, 300,009 bytes, of {name}"
        for name in ("deckard-31b", "deckard-e4b")
    ]
    assert hub.ranges == []
    assert not (tmp_path / "models").exists()


def test_generated_model_is_written(tmp_path: Path, report: RecordingReporter) -> None:
    folder = tmp_path / "models" / "tiny-gemma4"
    line = f"write tiny-gemma4, which is generated, to {folder}"
    assert list(pull_models(Choice(profile="cpu"), tmp_path, report, dry_run=True)) == [folder]
    assert not folder.exists()
    assert list(pull_models(Choice(profile="cpu"), tmp_path, report)) == [folder]
    assert report.lines == [f"would    {line}", f"weights  {line}"]
    assert (folder / "config.json").is_file()
