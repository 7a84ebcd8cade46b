"""`bench`: settings of a sweep, the deployments to measure, and stored records."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.bench import (
    all_records,
    compare_measured,
    find_record,
    save_records,
    select,
    summary_line,
    sweep_settings,
)
from deckard_deploy.operations.bench_compare import find_named
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from tests.support import sample_records as made
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.sample_records import FAST, SAME, SLOW


def test_given_settings_win_over_preset() -> None:
    settings = sweep_settings(preset="seed", concurrency=None, output_tokens=16)
    assert (settings.concurrency, settings.output_tokens) == ((1, 2, 4), 16)
    assert (settings.runs, settings.most_runs) == (5, 15)
    settings = sweep_settings(runs=3)
    assert (settings.runs, settings.most_runs) == (3, 3)


def test_two_deployments_are_selected_in_turn(fake: FakeDeployment) -> None:
    for name in ("box", "crate"):
        (fake.state.create(name).releases / "one").mkdir()
    box = Selection(fake.state.root, "box")
    assert [deployment.name for deployment in select(box, None)] == ["box"]
    assert [deployment.name for deployment in select(box, "crate")] == ["box", "crate"]
    with pytest.raises(BadInputError, match="cannot be compared with itself"):
        select(box, "box")


def test_damaged_record_is_reported(tmp_path: Path, report: RecordingReporter) -> None:
    made.save_three(tmp_path / "bench")
    (tmp_path / "bench" / f"{SLOW}.json").write_text("{}")
    assert [record.id for record in all_records(tmp_path, report)] == [FAST, SAME]
    (line,) = report.lines
    assert line.startswith("damaged  ")
    assert f"{SLOW}.json" in line


def test_record_is_found_by_beginning_and_last(tmp_path: Path) -> None:
    made.save_three(tmp_path / "bench")
    assert find_record(tmp_path, "last").id == SAME
    assert find_record(tmp_path, FAST[:-2]).id == FAST
    with pytest.raises(BadInputError):
        find_record(tmp_path, "2026")


def test_summary_has_highest_speed() -> None:
    record = made.record([made.run(10.0, concurrency=1), made.run(30.0, concurrency=4)])
    assert summary_line(record).endswith("tiny-gemma4 on cpu, vLLM 0.19.1, 30.0 tok/s at 4")


def test_records_of_a_stopped_sweep_are_saved(tmp_path: Path, report: RecordingReporter) -> None:
    headers = [made.header(name="d-old"), made.header(name="e-new")]
    rounds = [(made.run(9.0), made.run(10.0))]
    old, new = save_records(tmp_path, headers, rounds, report, stopped="interrupted")
    assert (old.beside, new.beside) == (new.id, old.id)
    assert (old.ended, new.ended) == ("interrupted", "interrupted")
    assert [line.partition(" ")[0] for line in report.lines] == ["record", "record"]


def test_second_side_is_a_record_or_a_name(tmp_path: Path) -> None:
    made.save_three(tmp_path / "bench")
    fast, slow, _ = all_records(tmp_path, SILENT)
    assert compare_measured([fast], None) is None
    named = compare_measured([fast], find_named(SLOW, tmp_path))
    both = compare_measured([fast, slow], None)
    assert named
    assert both
    assert named.new.name == both.new.name == FAST
    assert named.old.name == both.old.name == SLOW
