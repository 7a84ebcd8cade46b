"""`qualify` on the command line."""

import pytest

from deckard_deploy.cli.main import run
from tests.support.json_output import checked


def test_table_has_a_row_for_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["qualify", "vllm-0.33.0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == [
        "changes",
        "metrics",
        "patches",
        "advisories",
        "retires",
    ]
    assert len(lines) == 10


def test_json_has_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["qualify", "vllm-0.19.1", "--json"]) == 0
    rows = checked("qualify", capsys.readouterr().out)
    assert {row["verdict"] for row in rows} == {"ok", "not run"}


def test_unknown_engine_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["qualify", "vllm-0.33"]) == 2
    assert "vllm-0.33.0" in capsys.readouterr().err
