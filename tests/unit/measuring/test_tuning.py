"""The trials of `tune`: which go on, which win, and how far texts differ."""

from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.measuring.tuning import (
    Trial,
    TuneRecord,
    better_half,
    cells,
    combination,
    distance,
    load,
    save,
    winner,
)
from tests.support.sample_records import header

BASELINE = Trial(speeds={1: (10.0, 10.1, 9.9, 10.0)})


def trial(setting: str, *speeds: float, rejected: str = "") -> Trial:
    return Trial(settings=(setting,), speeds={1: speeds} if speeds else {}, distance=0.0, rejected=rejected)


FAST = trial("drafter=a", 20.0, 20.1, 19.9, 20.0)
FASTER = trial("max-num-batched-tokens=2048", 30.0, 30.2, 29.9, 30.0)
SAME = trial("kv-cache-dtype=fp8", 10.0, 10.2, 9.9, 10.1)
SLOW = trial("drafter=none", 5.0, 5.1, 4.9, 5.0)
CRASHED = trial("engine=x", rejected="it crashed")


def test_better_half_is_ranked_and_has_nothing_slower() -> None:
    assert better_half([SLOW, SAME, FAST, FASTER, CRASHED], BASELINE) == [FASTER, FAST]
    assert better_half([SLOW], BASELINE) == []


def test_winner_is_the_fastest_beyond_chance() -> None:
    assert winner([SAME, FAST, FASTER, SLOW, CRASHED], BASELINE) == FASTER
    assert winner([SAME, SLOW, CRASHED], BASELINE) is None


def test_combination_has_what_is_faster_alone() -> None:
    assert combination([FAST, FASTER, SAME], BASELINE) == ("max-num-batched-tokens=2048", "drafter=a")
    assert combination([FAST, SAME], BASELINE) is None
    other = trial("drafter=b", 15.0, 15.1, 14.9, 15.0)
    assert combination([FAST, other], BASELINE) is None  # two values of one setting


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["abcd"], ["abcd"], 0.0),
        (["abcd"], ["abxx"], 0.5),
        (["abcd", "abcd"], ["abcd", "xxxx"], 0.5),
        (["abcd"], ["abcdefgh"], 0.5),
        ([""], ["a"], 1.0),
        ([""], [""], 0.0),
    ],
)
def test_distance_is_the_share_after_the_first_difference(before, after, expected: float) -> None:
    assert distance(before, after) == expected


def test_runs_are_added_to_earlier_ones() -> None:
    more = BASELINE.with_runs({1: [10.2], 4: [30.0]})
    assert more.speeds == {1: (10.0, 10.1, 9.9, 10.0, 10.2), 4: (30.0,)}
    assert more.rounds == 1


def record() -> TuneRecord:
    made = header()
    return TuneRecord(
        id=made.id,
        made_at=made.made_at,
        tool_version=made.tool_version,
        subject=made.subject,
        host=made.host,
        goal="interactive",
        limit=0.0,
        own_distance=0.0,
        baseline=BASELINE,
        trials=(SLOW, FASTER, CRASHED),
        winner=FASTER.settings,
    )


def test_table_has_the_fastest_first_and_the_rejected_last() -> None:
    labels = [row[0] for row in cells(record())]
    assert labels == ["settings", "as it is", "max-num-batched-tokens=2048", "drafter=none", "engine=x"]
    assert cells(record())[-1][-1] == "it crashed"


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "tune" / "x.json"
    assert load(path) is None
    save(path, record())
    assert load(path) == record()
    path.write_text("{")
    with pytest.raises(IntegrityError, match="is not a record of tune"):
        load(path)
