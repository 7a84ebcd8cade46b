"""`bench`, `bench list` and `bench show`: the records that they print, and bad usage."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
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
def test_list_and_show_print_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [FAST, SLOW, SAME]
    assert run(["bench", "show", FAST]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "50%" in shown.splitlines()[1]
    assert "unknown" in shown.splitlines()[2]
    assert "no bandwidth" in shown
    assert run(["bench", "show", "last", "--json"]) == 0
    assert checked("bench show", capsys.readouterr().out)["id"] == SAME
    assert run(["bench", "list", "--json"]) == 0
    assert [each["id"] for each in checked("bench list", capsys.readouterr().out)] == [FAST, SLOW, SAME]


def test_empty_list_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["bench", "list"], ["keys", "list"]):
        assert run([*words, "--state-dir", str(tmp_path)]) == 0
        said = capsys.readouterr()
        assert (said.out, said.err[:3]) == ("", "no ")


def test_damaged_record_is_reported_and_skipped(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_beside_itself_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "deployments" / "x" / "releases" / "one").mkdir(parents=True)
    assert run(["bench", "--name", "x", "--beside", "x"]) == 2
    assert "with itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--concurrency", "1,x"], "'1,x' is not a list of numbers"),
        (["--runs", "1"], "1 is not in the range"),
        (["--preset", "sed"], "'sed' is not"),
        (["--name", "nothing"], "no deployment named 'nothing'"),
    ],
)
def test_bad_usage_exits_2(
    arguments: list[str], text: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", *arguments]) == 2
    assert text in capsys.readouterr().err
    assert len(list((home / "bench").iterdir())) == 3
