"""A record is built once, at the end of a sweep, and is valid or not built at all."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from deckard_deploy.measuring import records
from deckard_deploy.measuring.records import Ceiling, RecordHeader, Subject
from deckard_deploy.measuring.workload import Settings
from tests.support import sample_records

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
