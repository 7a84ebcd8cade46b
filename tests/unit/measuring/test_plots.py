"""Pictures of a record, where matplotlib is installed."""

import struct
import sys
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run as tool
from deckard_deploy.measuring import plots, records
from deckard_deploy.measuring.baselines import baselines
from deckard_deploy.measuring.figures import rows
from deckard_deploy.system.extras import install_command
from tests.support import sample_records
from tests.support.sample_records import full_record


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


def test_page_without_matplotlib_has_no_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = records.save(tmp_path, sample_records.record([sample_records.run(2.0), sample_records.run(3.0)]))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert tool(["bench", "report", str(path), "-o", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert f"no plots the plots need matplotlib.figure; try: {install_command('report')}" in captured.err
    page = Path(captured.out.strip())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [page.name]
    assert "<img" not in page.read_text()
