"""`bench list|show|compare`: what they print of records, and the exit code for CI."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.measuring import records
from deckard_deploy.measuring.records import Ceiling
from deckard_deploy.operations.bench import save_records
from deckard_deploy.operations.reporting import SILENT
from tests.support import sample_records
from tests.support.sample_plans import built_in


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with a slow record and a fast one, five runs at 1 and at 4."""
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path))
    folder = tmp_path / "bench"
    folder.mkdir()
    for name, factor in (("a-fast", 1.0), ("b-slow", 0.9), ("c-same", 1.003)):
        runs = [
            sample_records.run(factor * number * speed, concurrency=number)
            for number in (1, 4)
            for speed in (10.0, 10.1, 9.9, 10.05, 9.95)
        ]
        ceilings = (Ceiling(concurrency=1, tokens_per_s=20.0), Ceiling(concurrency=4, why="no bandwidth"))
        records.save(folder, sample_records.record(runs, name=name, ceilings=ceilings))
    return tmp_path


FAST, SLOW, SAME = (f"20261125-000000-{name}" for name in ("a-fast", "b-slow", "c-same"))


@pytest.mark.usefixtures("home")
def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [FAST, SLOW, SAME]
    assert run(["bench", "show", FAST]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "50%" in shown.splitlines()[1]
    assert "unknown" in shown.splitlines()[2]
    assert "no bandwidth" in shown
    assert run(["bench", "show", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == SAME


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
def test_compare_fails_for_what_is_surely_slower_alone(arguments: list[str], code: int) -> None:
    assert run(["bench", "compare", *arguments]) == code


@pytest.mark.usefixtures("home")
def test_compare_says_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "compare", FAST, SLOW]) == 0
    text = capsys.readouterr().out
    assert text.count("slower") == 3
    assert max(map(len, text.splitlines())) <= 80
    assert run(["bench", "compare", FAST, SAME, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["verdict"] for row in (*said["rows"], said["overall"])} == {"no difference seen"}


def test_a_damaged_record_hides_no_other(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "bench" / f"{SLOW}.json").write_text("{}")
    assert run(["bench", "list"]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == [FAST, SAME]
    assert f"{SLOW}.json" in said.err
    assert run(["bench", "compare", FAST, SLOW]) == 4
    (home / "bench" / f"{SLOW}.json").unlink()
    (home / "bench" / f"{SLOW}.json").mkdir()
    assert run(["bench", "list"]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == [FAST, SAME]
    assert "Is a directory" in said.err


def test_records_that_were_measured_in_turn_are_compared_in_pairs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_a_row_that_was_measured_once_has_no_bound_in_json(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep that was cut short, beside a published table."""
    runs = [
        sample_records.run(speed, concurrency=number) for number, speed in ((1, 10.0), (1, 10.1), (2, 20.0))
    ]
    records.save(home / "bench", sample_records.record(runs, name="d-cut"))
    assert run(["bench", "compare", "seed", "20261125-000000-d-cut", "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [row["high"] is None for row in said["rows"]] == [False, True]


def test_pairs_of_which_one_lacks_a_run_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = [sample_records.header(name=name) for name in ("d-old", "e-new")]
    rounds = [(sample_records.run(speed), sample_records.run(speed)) for speed in (9.0, 10.0, 11.0)]
    old, new = save_records(home / "bench", begun, rounds, SILENT)
    records.save(home / "bench", new.model_copy(update={"runs": new.runs[:-1]}))
    assert run(["bench", "compare", old.id, new.id]) == 2
    assert "one record has 3 of them and the other 2" in capsys.readouterr().err


def test_what_was_asked_differently_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "compare", FAST, SAME]) == 0
    assert "DIFFERENTLY" not in capsys.readouterr().out
    other = sample_records.record([sample_records.run(9.0), sample_records.run(10.0)], name="f-other")
    settings = other.settings.model_copy(update={"workload": "random", "output_tokens": 16})
    records.save(home / "bench", other.model_copy(update={"settings": settings}))
    assert run(["bench", "compare", FAST, "20261125-000000-f-other"]) == 0
    assert "DIFFERENTLY: workload text and random, output_tokens 300 and 16" in capsys.readouterr().out


def test_a_deployment_is_not_measured_beside_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "deployments" / "x" / "releases" / "one").mkdir(parents=True)
    assert run(["bench", "--name", "x", "--beside", "x"]) == 2
    assert "beside itself" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0", "fast"])
@pytest.mark.parametrize("words", [["bench", "compare", FAST, SLOW, "--fail-below"], ["top", "--interval"]])
def test_what_is_no_number_is_refused(
    words: list[str], number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, number]) == 2  # nan would be within every bound, and fail no comparison
    assert "--" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--concurrency", "1,x"], "'1,x' is not a list of numbers"),
        (["--runs", "1"], "1 is not in the range"),
        (["--preset", "sed"], "'sed' is not"),
        (["--name", "nothing"], "no deployment named 'nothing'"),
    ],
)
def test_bad_usage(arguments: list[str], text: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *arguments]) == 2
    assert text in capsys.readouterr().err
    assert len(list((home / "bench").iterdir())) == 3


def test_a_plan_without_its_drafter_is_the_plan_in_all_else() -> None:
    config = '{"method":"ngram","num_speculative_tokens":4}'
    arguments = ("/m", "--max-num-seqs", "4", "--speculative-config", config, "--enforce-eager")
    plan = built_in("cpu").model_copy(update={"arguments": arguments})
    assert plan.with_draft_tokens(0).arguments == ("/m", "--max-num-seqs", "4", "--enforce-eager")
    assert plan.with_draft_tokens(4) == plan
    assert '"num_speculative_tokens":2' in plan.with_draft_tokens(2).arguments[4]
    assert plan.with_draft_tokens(2).model_copy(update={"arguments": arguments}) == plan
