"""Calibration data: what of a file is read, and which of its texts a seed chooses."""

import json
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.quantizing import calibration
from deckard_deploy.quantizing.calibration import BUILTIN, CalibrationData, read_calibration


def read(path: Path | str, *, samples: int = 100, seed: int = 0) -> CalibrationData:
    return read_calibration(str(path), samples=samples, sequence_length=16, seed=seed)


def test_text_is_cut_into_pieces(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("a" * 150 + "\n")
    pieces = [text["text"] for text in read(path).texts]
    assert [len(piece) for piece in pieces] == [64, 64, 23]
    assert "".join(pieces) == path.read_text()


def test_seed_chooses_the_texts_of_a_larger_file(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(50)))
    first, again, other = read(path, samples=5), read(path, samples=5), read(path, samples=5, seed=1)
    assert (len(first.texts), first.available) == (5, 50)
    assert first == again
    assert first.texts != other.texts
    assert read(path, samples=50).texts == read(path, samples=50, seed=1).texts


def test_chats_and_texts_may_be_mixed(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    chat = [{"role": "user", "content": "Hi", "name": "x"}, {"role": "assistant", "content": "Hello"}]
    # A line separator inside of a text is no end of a line.
    rows = [
        json.dumps({"text": "one\u2028two", "id": 3}, ensure_ascii=False),
        "",
        json.dumps({"messages": chat}),
    ]
    path.write_text("\n".join(rows))
    data = read(path)
    assert data.texts[0] == {"text": "one\u2028two"}
    assert data.texts[1]["messages"][0] == {"role": "user", "content": "Hi"}
    assert data.has_chats
    data.write(tmp_path / "out")
    assert [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()] == list(data.texts)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "  "}, "neither `text` nor `messages`"),
        ({"text": 3}, "neither `text` nor `messages`"),
        ({"messages": []}, "neither `text` nor `messages`"),
        ({"messages": ["Hi"]}, "a message without a role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "whose content is no text"),
        ({"\x1b[31m": 1}, "keys: \\x1b[31m"),
    ],
)
def test_wrong_row_is_named_by_line(tmp_path: Path, row: object, words: str):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"text": "right"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(BadInputError) as caught:
        read(path)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert words in caught.value.message
    assert caught.value.message.isprintable()


def test_deep_json_is_one_line(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(BadInputError, match=r"data\.jsonl:1: not JSON"):
        read(path)


def test_huge_file_is_refused_by_its_size(tmp_path: Path):
    path = tmp_path / "data.txt"
    with path.open("wb") as file:
        file.truncate(calibration.LARGEST_BYTES + 1)
    with pytest.raises(BadInputError, match="more than 1024 MiB"):
        read(path)


def test_builtin_text_says_what_it_is_for():
    data = read(BUILTIN)
    assert data.is_for_rehearsals
    assert "rehearsal" in data.texts[0]["text"]
    assert not data.has_chats
