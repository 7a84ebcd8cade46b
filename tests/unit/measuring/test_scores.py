"""Passages of a text, answers of an engine, and the file of scores."""

import json
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.errors import BadInputError, IntegrityError, NetworkError
from deckard_deploy.measuring.scores import (
    PassageScore,
    ServedScores,
    load,
    parse_answer,
    read_passages,
    save,
)

ANSWER: dict[str, Any] = {
    "choices": [
        {
            "prompt_token_ids": [2, 7, 9],
            "prompt_logprobs": [
                None,
                {"7": {"logprob": -3.0, "rank": 4}, "5": {"logprob": -0.5, "rank": 1}},
                {"9": {"logprob": -0.1, "rank": 1}, "7": {"logprob": float("-inf")}},
            ],
        }
    ]
}


def changed(**choice: Any) -> dict[str, Any]:
    return {"choices": [{**ANSWER["choices"][0], **choice}]}


def test_answer_has_tokens_logprobs_and_candidates() -> None:
    tokens, logprobs, candidates = parse_answer(ANSWER)
    assert tokens == (2, 7, 9)
    assert logprobs == (-3.0, -0.1)
    assert candidates == (((5, -0.5), (7, -3.0)), ((9, -0.1), (7, -9999.0)))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"choices": []},
        changed(prompt_logprobs=None),
        changed(prompt_token_ids=None),
        changed(prompt_token_ids=[2, 7]),
        changed(prompt_token_ids=[2, 7, 8]),
        changed(prompt_logprobs=[None, {"7": None}, {"9": {"logprob": 0}}]),
        changed(prompt_logprobs=[None, {"7": {"logprob": float("nan")}}, {"9": {"logprob": 0}}]),
        changed(prompt_token_ids=[2], prompt_logprobs=[None]),
    ],
)
def test_other_answer_is_one_line(answer: Any) -> None:
    with pytest.raises(NetworkError) as refused:
        parse_answer(answer)
    assert "\n" not in refused.value.message


def test_passages_are_equal_whole_words(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("one two three four " * 100)
    found = read_passages(path, characters=100, most=12)
    assert len(found.passages) == 12
    assert set(" ".join(found.passages).split()) == {"one", "two", "three", "four"}
    assert all(100 <= len(passage) < 120 for passage in found.passages[:1])
    again = read_passages(path, characters=100, most=12)
    assert found.sha256 == again.sha256
    assert found.sha256 != read_passages(path, characters=100, most=13).sha256


def test_text_without_spaces_is_split_too(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("漢字" * 1000)
    assert {len(passage) for passage in read_passages(path, characters=100, most=99).passages} == {100}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"too short", "has 0 passages of 100 characters, and 10 are needed"),
        (b"", "has 0 passages"),
        (b" " * 5000, "has 0 passages"),
        (b"\xff\xfe" * 5000, "is not text in UTF-8"),
    ],
)
def test_text_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=line):
        read_passages(path, characters=100, most=20)


def scored() -> ServedScores:
    passage = PassageScore(
        token_ids=(1, 2), logprobs=(-1.0,), candidates=(((2, -1.0),),), noise_kl=0.0, noise_greedy=0
    )
    return ServedScores(
        deployment="a",
        model="m",
        engine="e",
        plan="p",
        weight_bytes=5,
        text_sha256="0" * 64,
        top=20,
        speeds=(1.5,),
        passages=(passage,) * 10,
    )


def test_saved_scores_are_read_again(tmp_path: Path) -> None:
    save(tmp_path / "a.json", scored())
    assert load(tmp_path / "a.json") == scored()


DAMAGES = {
    "not json": "x",
    "another file": "{}",
    "few passages": json.dumps({**scored().model_dump(), "passages": []}),
    "another format": json.dumps({**scored().model_dump(), "format": 2}),
    "control characters": json.dumps({**scored().model_dump(), "model": "\x1b[31m"}),
    "a place too few": scored().model_dump_json().replace('"logprobs":[-1.0]', '"logprobs":[]', 1),
    "no candidates": scored().model_dump_json().replace("[[2,-1.0]]", "[]", 1),
    "a positive logprob": scored().model_dump_json().replace('"logprobs":[-1.0]', '"logprobs":[1.0]', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(DAMAGES[damage])
    with pytest.raises(IntegrityError, match="not scores of `compare`") as refused:
        load(path)
    assert refused.value.message.isprintable()


def test_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is not a file of scores"):
        load(tmp_path / "a.json")
