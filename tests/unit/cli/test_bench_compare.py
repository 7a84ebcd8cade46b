"""`bench compare`: the printed ratios, and the exit code for CI."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.measuring import records
from deckard_deploy.operations.bench import save_records
from deckard_deploy.operations.reporting import SILENT
from tests.support import sample_records
from tests.support.json_output import checked
from tests.support.sample_records import FAST, SAME, SLOW


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state directory with three records."""
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path))
    sample_records.save_three(tmp_path / "bench")
    return tmp_path


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([FAST, SLOW], 0),
        ([FAST, SLOW, "--fail-below", "0.95"], 10),
        ([FAST, SLOW, "--fail-below", "0.85"], 0),
        ([FAST, SAME, "--fail-below", "1.5"], 0),  # no difference was seen: nothing to fail for
        ([SLOW, FAST, "--fail-below", "0.95"], 0),
        (["seed", FAST, "--fail-below", "0.95"], 0),
        ([FAST, "nonsense"], 2),
    ],
)
def test_compare_fails_only_when_surely_slower(arguments: list[str], code: int) -> None:
    assert run(["bench", "compare", *arguments]) == code


@pytest.mark.usefixtures("home")
def test_compare_prints_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "compare", FAST, SLOW]) == 0
    text = capsys.readouterr().out
    assert text.count("slower") == 3
    assert max(map(len, text.splitlines())) <= 80
    assert "old, new: geometric means of the runs in tok/s" in text
    assert "DIFFERENT" not in text
    assert run(["bench", "compare", "seed", FAST]) == 0
    assert "DIFFERENT MODELS OR MACHINES: deckard-31b on spark and" in capsys.readouterr().out
    assert run(["bench", "compare", FAST, SAME, "--json"]) == 0
    said = checked("bench compare", capsys.readouterr().out)
    assert {row["verdict"] for row in (*said["rows"], said["overall"])} == {"no difference seen"}


def test_records_measured_in_turn_compare_in_pairs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = (10.0, 20.0, 12.0, 31.0, 9.0)  # is what differs: each pair tells the same
    begun = [sample_records.header(name=name) for name in ("d-old", "e-new")]
    rounds = [(sample_records.run(speed), sample_records.run(0.9 * speed)) for speed in machine]
    assert [
        each.ended for each in save_records(home / "bench", begun, rounds, SILENT, stopped="it \x1b[2Jdied\n")
    ] == ["it [2Jdied"] * 2
    capsys.readouterr()
    assert (
        run(["bench", "compare", "20261125-000000-d-old", "20261125-000000-e-new", "--fail-below", "0.95"])
        == 10
    )
    said = capsys.readouterr().out
    assert "0.900" in said
    assert "pair by pair" in said


def test_row_measured_once_has_no_bound_in_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that was cut short, beside a published table."""
    runs = [
        sample_records.run(speed, concurrency=number) for number, speed in ((1, 10.0), (1, 10.1), (2, 20.0))
    ]
    records.save(home / "bench", sample_records.record(runs, name="d-cut"))
    assert run(["bench", "compare", "seed", "20261125-000000-d-cut", "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [row["high"] is None for row in said["rows"]] == [False, True]


def test_pairs_with_missing_run_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = [sample_records.header(name=name) for name in ("d-old", "e-new")]
    rounds = [(sample_records.run(speed), sample_records.run(speed)) for speed in (9.0, 10.0, 11.0)]
    old, new = save_records(home / "bench", begun, rounds, SILENT)
    records.save(home / "bench", new.model_copy(update={"runs": new.runs[:-1]}))
    assert run(["bench", "compare", old.id, new.id]) == 2
    assert "one record has 3 of them and the other 2" in capsys.readouterr().err


def test_compare_names_different_settings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "compare", FAST, SAME]) == 0
    assert "DIFFERENTLY" not in capsys.readouterr().out
    other = sample_records.record([sample_records.run(9.0), sample_records.run(10.0)], name="f-other")
    settings = other.settings.model_copy(update={"workload": "random", "output_tokens": 16})
    records.save(home / "bench", other.model_copy(update={"settings": settings}))
    assert run(["bench", "compare", FAST, "20261125-000000-f-other"]) == 0
    assert "DIFFERENTLY: workload text and random, output_tokens 300 and 16" in capsys.readouterr().out
