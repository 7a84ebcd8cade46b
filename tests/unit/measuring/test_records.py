"""A record is built once, at the end of a sweep, and is valid or not built at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.measuring import records
from deckard_deploy.measuring.records import Ceiling, RecordHeader, Subject
from deckard_deploy.measuring.workload import Settings
from tests.support import sample_records
from tests.support.sample_records import record, run

HEADER = RecordHeader(
    id="20261125-000000-made",
    made_at="2026-11-25T00:00:00+00:00",
    tool_version="0",
    subject=Subject(model="tiny-gemma4", engine="vllm-0.19.1-cpu", vllm_version="0.19.1", profile="cpu"),
    host={"cpus": 2},
    settings=Settings(runs=1),
    command=("vllm", "bench", "serve"),
    ceilings=(Ceiling(concurrency=1, tokens_per_s=20.0),),
)


def test_record_has_all_fields_of_its_header() -> None:
    record = HEADER.record(runs=[sample_records.run(1.0)])
    assert HEADER.model_dump().items() <= record.model_dump().items()
    assert record.runs == (sample_records.run(1.0),)
    assert (record.ended, record.beside) == ("", None)


def test_built_record_can_be_saved_and_loaded(tmp_path: Path) -> None:
    record = HEADER.record(
        runs=(sample_records.run(1.0),), stopped="interrupted", beside="20261125-000000-other"
    )
    assert records.load(records.save(tmp_path, record)) == record
    assert (record.ended, record.beside) == ("interrupted", "20261125-000000-other")


def test_record_without_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="20261125-000000-made has no run"):
        HEADER.record(runs=())


def test_invalid_neighbour_is_refused() -> None:
    with pytest.raises(ValidationError, match="beside"):
        HEADER.record(runs=[sample_records.run(1.0)], beside="../elsewhere")


def test_reason_of_the_stop_is_one_printable_line() -> None:
    """A server's own words may be in it."""
    record = HEADER.record(runs=[sample_records.run(1.0)], stopped="refused:\n\x1b[2Jred " + "x" * 1000)
    assert record.ended.startswith("refused: [2Jred xxx")
    assert len(record.ended) == 500


def test_header_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        HEADER.id = "another"  # type: ignore[misc]


def test_saved_record_is_loaded_unchanged(tmp_path: Path) -> None:
    bench_record = record([run(1.0, drafts=4, accepted=2)])
    path = records.save(tmp_path, bench_record)
    assert records.load(path) == bench_record
    assert records.find(tmp_path, "last") == records.find(tmp_path, bench_record.id[:12]) == path
    assert [path.name for path in tmp_path.iterdir()] == [f"{bench_record.id}.json"]


def set_field(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(whole: dict[str, Any]) -> None:
        *way, last = name.split(".")
        for step in way:
            whole = whole[int(step)] if step.isdecimal() else whole[step]  # type: ignore[index]
        whole[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_field("runs", []),
        set_field("runs.0.requests", []),
        set_field("runs.0.tokens_per_s", 0),
        set_field("runs.0.tokens_per_s", 1e300),
        set_field("runs.0.concurrency", 0),
        set_field("runs.0.requests.0.latency_s", 0),
        set_field("runs.0.completed", -1),
        set_field("runs.0.concurrency", 10**30),
        set_field("runs.0.requests.0.output_tokens", 10**400),
        set_field("runs.0.acceptance.drafts", 0),
        set_field("runs.0.acceptance.draft_tokens", 0),
        set_field("runs.0.acceptance.accepted_tokens", 10**400),
        set_field("runs.0.acceptance.by_position", [1e308]),
        set_field("id", "../../elsewhere"),
        set_field("subject.model", "\x1b[2Jred"),
        set_field("ended", "two\nlines"),
        set_field("unknown", 1),
    ],
)
def test_damaged_record_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = records.save(tmp_path, record([run(1.0, drafts=4, accepted=2)]))
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    with pytest.raises(IntegrityError):
        records.load(path)


def test_unknown_record_is_named_in_error(tmp_path: Path) -> None:
    path = records.save(tmp_path, record([run(1.0)]))
    path.write_text(path.read_text().replace('"tokens_per_s": 1.0', '"tokens_per_s": "fast"'))
    with pytest.raises(IntegrityError, match=r"runs\.0\.tokens_per_s"):
        records.load(path)
    with pytest.raises(BadInputError, match="no record 'nonsense'"):
        records.find(tmp_path, "nonsense")
    records.save(tmp_path, record([run(1.0)], name="other"))
    with pytest.raises(BadInputError, match="2 records begin with '2026"):
        records.find(tmp_path, "2026")
    with pytest.raises(BadInputError, match="No such file"):
        records.load(records.find(tmp_path, str(tmp_path / "gone.json")))
