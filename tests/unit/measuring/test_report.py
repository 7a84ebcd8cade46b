"""The report page and its pictures: self-contained, and a one-line error without matplotlib."""

import re
import struct
import sys
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run as tool
from deckard_deploy.measuring import plots, records
from deckard_deploy.measuring.baselines import baselines
from deckard_deploy.measuring.comparison import compare
from deckard_deploy.measuring.figures import rows
from deckard_deploy.measuring.records import BenchRecord, Ceiling
from deckard_deploy.measuring.report import html, machine, markdown
from tests.support import sample_records


def full_record() -> BenchRecord:
    runs = [
        sample_records.run(speed, concurrency=1, drafts=10, accepted=7, failed=1)
        for speed in (9.0, 10.0, 11.0)
    ]
    whole = sample_records.record(runs, ceilings=(Ceiling(concurrency=1, tokens_per_s=20.0),))
    return whole.model_copy(update={"subject": whole.subject.model_copy(update={"model": "<script>"})})


def test_one_picture_per_measured_figure() -> None:
    drawn = plots.pictures(rows(full_record()), baselines()["seed"])
    assert list(drawn) == ["throughput", "latency", "acceptance", "roofline"]
    for picture in drawn.values():
        width, height = struct.unpack(">II", picture[16:24])  # PNG: signature, length, IHDR, width, height
        assert (picture[:4], width, height) == (b"\x89PNG", 1152, 518)
    assert list(plots.pictures(rows(sample_records.record([sample_records.run(1.0)])))) == [
        "throughput",
        "latency",
    ]


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


def test_missing_matplotlib_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = records.save(tmp_path, sample_records.record([sample_records.run(2.0), sample_records.run(3.0)]))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert tool(["bench", "report", str(path), "-o", str(tmp_path / "out")]) == 3
    assert "error: the plots need matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
