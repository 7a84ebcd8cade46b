"""Facts are saved and loaded, or refused with one line."""

from pathlib import Path

import pytest

from deckard_deploy.doctor.facts import MAX_BYTES, load, save
from deckard_deploy.errors import BadInputError
from tests.support.rule_cases import FACTS, facts


@pytest.mark.parametrize("name", sorted(path.stem for path in FACTS.glob("*.json")))
def test_saved_facts_are_loaded_unchanged(name: str, tmp_path: Path):
    saved = facts(of=name)
    save(saved, tmp_path / "facts.json")
    assert load(tmp_path / "facts.json") == saved == load(FACTS / f"{name}.json")
    assert "T" not in saved.origin or saved.origin.startswith(("collected", "constructed"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file: Invalid JSON"),
        (b"\xff\xfe", "the file: Invalid JSON"),
        (b"[]", "the file: Input should be an object"),
        (b'{"format": 2}', "format: Input should be 1"),
        (b'{"hostname": "x"}', "hostname: Extra inputs are not permitted"),
        (b'{"gpus": [{"index": "0", "name": "x"}]}', "gpus.0.index: Input should be a valid integer"),
        (b'{"memory": {"total_kib": 1}}', "memory.free_kib: Field required"),
        (b" " * (MAX_BYTES + 1), "not a set of facts"),
    ],
)
def test_invalid_facts_file_is_refused(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(BadInputError, match=message) as refused:
        load(tmp_path / "f")
    assert "\n" not in refused.value.message


def test_unreadable_or_unwritable_file_is_an_error(tmp_path: Path):
    with pytest.raises(BadInputError, match="No such file"):
        load(tmp_path / "none")
    with pytest.raises(BadInputError, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(BadInputError, match="No such file"):
        save(facts(), tmp_path / "none/f")
