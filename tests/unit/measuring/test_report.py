"""The report page and its pictures: self-contained, and a one-line error without matplotlib."""

import re
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run as tool
from deckard_deploy.measuring import records
from deckard_deploy.measuring.baselines import baselines
from deckard_deploy.measuring.comparison import compare
from deckard_deploy.measuring.report import html, machine, markdown
from tests.support import sample_records
from tests.support.sample_records import full_record


def test_page_is_self_contained_and_shows_failures() -> None:
    record = full_record()
    comparison = compare(baselines()["seed"].speeds, {1: [9.0, 10.0, 11.0]}, exact=True)
    page = html(record, {"throughput": b"PNG"}, published=baselines()["seed"], comparison=comparison)
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "3 requests failed" in page
    assert "50 %" in page
    assert "18 %<td>1.70" in page.replace("\n", "")  # 7 of 40 drafted tokens, over ten drafts
    assert "Cut short" not in page
    assert "Cut short: interrupted" in html(record.model_copy(update={"ended": "interrupted"}), {})
    assert comparison.rows[1].verdict in page
    assert "Different models or machines: deckard-31b on spark and" in page
    assert "<script>" not in page  # a name is text, whatever it holds
    assert "&lt;script&gt;" in page


def test_markdown_has_equal_columns() -> None:
    header, line, *body = markdown(full_record()).split("\n\n")[0].splitlines()
    assert {text.count("|") for text in (header, line, *body)} == {12}


def test_undescribed_machine_has_a_text() -> None:
    for host in ({"gpus": 1}, {"memory": {"total_kib": 10**400}}):
        assert machine(host) == "a machine that the record does not describe"


def test_report_writes_files_into_output_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records.save(tmp_path, sample_records.record([sample_records.run(2.0), sample_records.run(3.0)]))
    assert tool(["bench", "report", str(path), "-o", str(tmp_path / "out"), "--compare", "seed"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert sorted(file.name for file in page.parent.iterdir()) == [
        "20261125-000000-made-latency.png",
        "20261125-000000-made-throughput.png",
        "20261125-000000-made.html",
    ]
