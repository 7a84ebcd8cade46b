"""`bench report`: a record as a page with plots, next to a published table."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring import records
from deckard_deploy.operations.bench_report import write_report
from tests.support import sample_records as made
from tests.support.recording_reporter import RecordingReporter
from tests.support.sample_records import FAST

pytest.importorskip("matplotlib")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a state directory with three records."""
    made.save_three(tmp_path / "bench")
    return tmp_path


def test_page_and_plots_are_written(home: Path, report: RecordingReporter) -> None:
    page = write_report(FAST, home, home / "out", report, against="seed")
    assert page == home / "out" / f"{FAST}.html"
    assert "<img" in page.read_text(encoding="utf-8")
    assert {path.suffix for path in (home / "out").iterdir()} == {".html", ".png"}
    assert report.lines == []


def test_table_without_common_row_gives_no_ratio(home: Path, report: RecordingReporter) -> None:
    records.save(home / "bench", made.record([made.run(9.0, concurrency=3)], name="d-three"))
    assert write_report("last", home, home / "out", report, against="seed").is_file()
    (line,) = report.lines
    assert line.startswith("no ratio ")


def test_unknown_table_writes_nothing(home: Path, report: RecordingReporter) -> None:
    with pytest.raises(BadInputError):
        write_report(FAST, home, home / "out", report, against="sed")
    assert not (home / "out").exists()
