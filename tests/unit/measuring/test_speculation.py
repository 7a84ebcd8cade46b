"""The recommended number of drafted tokens, its evidence, and the record that `plan` shows."""

from pathlib import Path

import pytest

from deckard_deploy.cli.screens.speed import measured_lines
from deckard_deploy.errors import IntegrityError
from deckard_deploy.measuring import speculation, startup_records
from deckard_deploy.measuring.records import BenchRecord, Drafting, Subject
from deckard_deploy.measuring.speculation import (
    OFF,
    SpecRecord,
    Trial,
    cells,
    evaluate,
    recommend,
)
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.operations.plan import measured_drafter
from deckard_deploy.running.layout import StateDir
from tests.support import sample_records
from tests.support.sample_choices import choice

DRAFTING = Drafting(method="mtp", model="/models/assistant", tokens=4)
SUBJECT = Subject(model="m", engine="e", vllm_version="0.32.0", profile="spark", drafting=DRAFTING)


def sweep_record(speed: float, accepted: int = 0) -> BenchRecord:
    drafts = 100 if accepted else 0
    speeds = (0.99 * speed, speed, 1.01 * speed, 0.995 * speed, 1.005 * speed)
    return sample_records.record(
        [sample_records.run(each, drafts=drafts, accepted=accepted) for each in speeds]
    )


def spec_record(*attempts: Trial, name: str = "a", subject: Subject = SUBJECT) -> SpecRecord:
    return SpecRecord(
        id=f"20261125-000000-{name}",
        made_at="2026-11-25T00:00:00+00:00",
        tool_version="0",
        subject=subject,
        host={},
        settings=Settings(),
        off="off",
        off_tokens_per_s={1: 10.0},
        tried=attempts,
        recommended=recommend(attempts),
    )


def test_fastest_significant_number_is_recommended() -> None:
    off = sweep_record(10.0)
    attempts = [
        evaluate(1, sweep_record(13.0, 90), off),
        evaluate(2, sweep_record(15.0, 80), off),
        evaluate(5, sweep_record(8.0, 10), off),
    ]
    assert [each.verdict for each in attempts] == ["faster", "faster", "slower"]
    assert recommend(attempts) == 2
    assert "recommended: draft 2: 1.50 times as fast" in spec_record(*attempts).recommendation_text()
    assert (attempts[0].acceptance, attempts[0].length) == (90 / 400, 1.9)


def test_no_drafter_if_nothing_is_surely_faster() -> None:
    off = sweep_record(10.0)
    attempts = [evaluate(1, sweep_record(10.02, 90), off), evaluate(2, sweep_record(7.0, 5), off)]
    assert attempts[0].ratio > 1
    assert recommend(attempts) == OFF
    assert "recommended: no drafter" in spec_record(*attempts).recommendation_text()
    assert "drafting 1: 1.00 times as fast" in spec_record(*attempts).recommendation_text()
    slower = spec_record(attempts[1])  # surely: nothing is left to be told
    assert "more --runs" not in slower.recommendation_text()


def test_spec_table_fits_a_terminal() -> None:
    table = cells(spec_record(evaluate(1, sweep_record(13.0, 90), sweep_record(10.0))))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    assert sum(widths) + 2 * len(widths) + 10 <= 80  # and a second concurrency


def test_latest_record_of_subject_and_drafter_is_found(tmp_path: Path) -> None:
    wanted = {"profile": "spark", "model": "m", "engine": "e"}
    assert speculation.latest_record(tmp_path, wanted, DRAFTING) is None
    for name in ("a", "b"):
        speculation.save(tmp_path, spec_record(name=name))
    other = Drafting(method="mtp", model="/elsewhere/assistant", tokens=2)
    found = speculation.latest_record(tmp_path, wanted, other)
    assert found is not None
    assert found.id.endswith("-b")
    assert speculation.latest_record(tmp_path, {**wanted, "profile": "b200"}, DRAFTING) is None
    assert speculation.latest_record(tmp_path, wanted, Drafting(method="ngram", model=None, tokens=4)) is None
    (tmp_path / "20991231-000000-x.json").write_text("{}")
    with pytest.raises(IntegrityError, match="20991231-000000-x"):
        speculation.latest_record(tmp_path, wanted, DRAFTING)


def test_startup_table_has_a_line_per_phase() -> None:
    timed = startup_records.TimedStart
    found = startup_records.cells(
        [
            timed(caches="empty", total_s=60.0, phases={"imports": 20.0, "torch.compile": 40.0}),
            timed(caches="kept", total_s=25.0, phases={"imports": 20.0, "torch.compile": 5.0}),
            timed(caches="kept", total_s=27.0, phases={"imports": 20.0, "torch.compile": 7.0}),
        ],
        ["imports", "weights", "torch.compile"],
    )
    assert found == [
        ("phase", "caches empty", "kept", "saved"),
        ("imports", "20.0 s", "20.0 s (20.0 to 20.0)", "0.0 s"),
        ("torch.compile", "40.0 s", "6.0 s (5.0 to 7.0)", "34.0 s"),
        ("total", "60.0 s", "26.0 s (25.0 to 27.0)", "34.0 s"),
    ]


def test_plan_shows_measured_drafter(tmp_path: Path) -> None:
    resolved = choice("spark", "drafter=deckard-e4b")
    drafter = Drafting(method="draft_model", model="/models/deckard-e4b", tokens=5)
    subject = Subject(
        model=resolved.model.name,
        engine=resolved.engine.name,
        vllm_version="0.19.1",
        profile="spark",
        drafting=drafter,
    )
    directory = StateDir(tmp_path)
    folder = directory.bench / "spec"
    folder.mkdir(parents=True)
    assert measured_lines(measured_drafter(resolved, directory)) == []
    speculation.save(
        folder, spec_record(evaluate(5, sweep_record(8.0, 10), sweep_record(10.0)), subject=subject)
    )
    assert "recommended: no drafter" in " ".join(measured_lines(measured_drafter(resolved, directory)))
    assert measured_lines(measured_drafter(choice("spark"), directory)) == []
