"""What diagnose says of lines from public threads."""

import io
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from deckard_deploy.operations.diagnose import diagnose_log


class FieldLines(NamedTuple):
    """Lines of one thread. next: regular expression for the fix. stalled: the start hangs, nothing has ended."""

    source: str
    signature: str
    next: str
    lines: list[str]
    stalled: bool = False


FIELD_LINES = [
    FieldLines(**each) for each in yaml.safe_load(Path(__file__).with_name("field_lines.yaml").read_text())
]


@pytest.mark.parametrize(
    "case", FIELD_LINES, ids=lambda case: case.source.removeprefix("https://github.com/")
)
def test_lines_of_thread_show_failure_and_fix(case: FieldLines):
    log = io.BytesIO("\n".join(case.lines).encode())
    found = diagnose_log(log, exit_code=None if case.stalled else 1).diagnosis
    assert found is not None
    assert found.signature == case.signature
    assert re.search(case.next, found.fix)


def test_threads_are_many():
    assert len({case.source for case in FIELD_LINES}) > 80
