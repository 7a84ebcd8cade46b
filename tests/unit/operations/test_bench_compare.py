"""`bench compare`: ratios of two sides, and the error for a slower one."""

import json
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, RegressionError
from deckard_deploy.measuring import records
from deckard_deploy.operations.bench_compare import as_json, compare_named, require_speed, rows
from tests.support import sample_records as made
from tests.support.sample_records import FAST, SAME, SLOW


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a state directory with three records."""
    made.save_three(tmp_path / "bench")
    return tmp_path


def test_rows_have_ratio_and_roofline(home: Path) -> None:
    head, one, four, overall = rows(compare_named(FAST, SLOW, home))
    assert head[:3] == ("concurrency", "old", "new")
    assert (one[0], one[3], one[-1]) == ("1", "0.900", "45%")
    assert (four[0], four[-1]) == ("4", "unknown")
    assert overall[0] == "all"


@pytest.mark.parametrize(("new", "limit"), [(SLOW, 0.85), (SAME, 1.5), (FAST, 1.5)])
def test_speed_above_limit_passes(home: Path, new: str, limit: float) -> None:
    require_speed(compare_named(FAST, new, home), limit)


def test_surely_slower_speed_is_an_error(home: Path) -> None:
    with pytest.raises(RegressionError, match=r"reaches 0\.900 of .*, less than 0\.95") as failed:
        require_speed(compare_named(FAST, SLOW, home), 0.95)
    assert failed.value.exit_code == 10


def test_row_measured_once_has_no_bound(home: Path) -> None:
    runs = [made.run(10.0), made.run(10.1), made.run(20.0, concurrency=2)]
    records.save(home / "bench", made.record(runs, name="d-cut"))
    facts = as_json(compare_named("seed", "20261125-000000-d-cut", home))
    text = json.dumps(facts, allow_nan=False)
    assert [row["high"] is None for row in json.loads(text)["rows"]] == [False, True]


def test_sides_without_common_row_are_refused(home: Path) -> None:
    records.save(home / "bench", made.record([made.run(9.0, concurrency=3)], name="d-three"))
    with pytest.raises(BadInputError):
        compare_named(FAST, "20261125-000000-d-three", home)
