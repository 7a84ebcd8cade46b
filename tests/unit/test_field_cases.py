"""The field cases of this repository pass, and a case that does not hold is reported."""

import json
from pathlib import Path

import pytest

from tests.campaigns.field_cases import OWN, cases_in, run
from tests.support.field_cases import KINDS, FieldCase, check_case, load_case

CASES = cases_in([OWN])


def write_case(folder: Path, **settings: object) -> FieldCase:
    folder.mkdir()
    (folder / "case.json").write_text(json.dumps(settings))
    (folder / "engine.log").write_text("RuntimeError: never seen before\n")
    return load_case(folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_holds(case: FieldCase):
    result = check_case(case)
    assert result.passed, f"{result.differences}\n{result.text}"


def test_every_kind_has_a_case():
    assert {case.kind for case in CASES} == KINDS.keys() - {"http"}


def test_every_case_has_a_requirement():
    for case in CASES:
        assert "What must happen: " in case.text("README")
        assert case.settings["must"]
        assert case.settings["must_not"]


@pytest.mark.parametrize(
    ("patterns", "difference"),
    [
        ({"must": ["out of memory"]}, "does not say 'out of memory'"),
        ({"must_not": ["^UNKNOWN: .*logs --failed$"]}, "says '^UNKNOWN: .*logs --failed$'"),
    ],
)
def test_difference_is_reported(tmp_path: Path, patterns: dict[str, list[str]], difference: str):
    result = check_case(write_case(tmp_path / "case", kind="log", **patterns))
    assert result.differences == [difference]


def test_case_that_cannot_run_fails(tmp_path: Path):
    result = check_case(write_case(tmp_path / "case", kind="host"))
    assert result.differences[0].startswith("cannot be run: FileNotFoundError: ")


def test_unknown_kind_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="unknown kind or key"):
        write_case(tmp_path / "case", kind="logs")


def test_folder_without_case_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="has no case"):
        cases_in([tmp_path])


def test_campaign_prints_lines_and_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_case(tmp_path / "a", kind="log", must=["RuntimeError"], line=True)
    write_case(tmp_path / "b", kind="log", must=["out of memory"])
    write_case(tmp_path / "c", kind="http")
    assert run([tmp_path]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "pass a",
        "FAIL b: does not say 'out of memory'",
        "---- c: not run here, see its README",
        "1 pass, 1 fail",
    ]
