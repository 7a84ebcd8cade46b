"""Sides of a comparison: records and published tables."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring import records
from deckard_deploy.measuring.records import BenchRecord
from deckard_deploy.measuring.sides import (
    differences_in_settings,
    differences_in_subject,
    find_side,
    of_record,
    published,
)
from tests.support.sample_records import record, run


def with_settings(**changes: object) -> BenchRecord:
    found = record([run(1.0)])
    return found.model_copy(update={"settings": found.settings.model_copy(update=changes)})


def test_record_has_speeds_by_concurrency():
    side = of_record(record([run(1.0), run(2.0), run(9.0, concurrency=4)]))
    assert side.speeds == {1: [1.0, 2.0], 4: [9.0]}
    assert side.about == "tiny-gemma4 on cpu, vLLM 0.19.1"


def test_record_is_found_by_its_id(tmp_path: Path):
    saved = record([run(1.0)])
    records.save(tmp_path, saved)
    assert find_side(tmp_path, saved.id).record == saved


def test_published_table_comes_before_records(tmp_path: Path):
    side = find_side(tmp_path, "seed")
    assert side.record is None
    assert side.speeds == published("seed").speeds


def test_unknown_table_names_the_known_ones():
    with pytest.raises(BadInputError, match=r"no published table 'x'; known: .*seed"):
        published("x")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({}, ""),
        ({"output_tokens": 7}, "output_tokens 128 and 7"),
        ({"input_tokens": 7}, ""),
        ({"workload": "random", "input_tokens": 7}, "workload text and random, input_tokens 128 and 7"),
    ],
)
def test_differing_settings_are_named(changes: dict[str, object], difference: str):
    """The number of input tokens counts for random prompts only."""
    first = of_record(with_settings(workload="text", output_tokens=128, input_tokens=128))
    second = of_record(
        with_settings(**{"workload": "text", "output_tokens": 128, "input_tokens": 128, **changes})
    )
    assert differences_in_settings(first, second) == difference


def test_settings_of_published_table_are_unknown(tmp_path: Path):
    assert differences_in_settings(find_side(tmp_path, "seed"), of_record(record([run(1.0)]))) == ""


def test_other_model_and_machine_are_named(tmp_path: Path):
    """A toy on a CPU was compared with a Spark's model card without a word."""
    here, card = of_record(record([run(1.0)])), find_side(tmp_path, "seed")
    assert differences_in_subject(card, here) == "deckard-31b on spark and tiny-gemma4 on cpu"
    assert differences_in_subject(here, here) == ""
