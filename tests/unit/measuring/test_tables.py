"""Tables of a record fit the terminal."""

from deckard_deploy.measuring.tables import WIDTH, cells, notes
from tests.support.sample_records import record, run


def test_table_fits_terminal_and_names_failures() -> None:
    bench_record = record(
        [run(12345.6, concurrency=16, failed=3, drafts=9, accepted=9), run(1.5, drafts=9, accepted=9)]
    )
    widths = [max(map(len, column)) for column in zip(*cells(bench_record), strict=True)]
    assert sum(widths) + 2 * (len(widths) - 1) <= WIDTH
    assert all(len(line) <= WIDTH for line in notes(bench_record))
    assert "FAILED" in " ".join(notes(bench_record))
    assert "FAILED" not in " ".join(notes(record([run(1.0)])))
