"""JSON of untrusted checkpoints: one object, or one line that says why not."""

import os
from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights.strict_json import detect_wrong_content, parse_object, read_object


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b'{"a": {"b": 1, "b": 1}}', "duplicate key 'b'"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -0}', "-0 is no whole number"),
        (b"[1]", "a JSON list, where an object was expected"),
        (b"\xff{}", "not UTF-8 text (byte 0)"),
        (b"{", "not JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_refusal_names_source_and_cause(text: bytes, words: str):
    with pytest.raises(IntegrityError) as caught:
        parse_object(text, source="config.json")
    assert caught.value.message.startswith("config.json: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_numbers_and_text_are_kept():
    assert parse_object('{"a": [0, -1, 1e3, "ä"]}'.encode(), source="x") == {"a": [0, -1, 1000.0, "ä"]}


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\n <!DOCTYPE html>", "HTML page"),
        (b"<?xml version=", "XML error page"),
        (b"\x80\x04\x95", "pickle"),
        (b"PK\x03\x04", "zip archive"),
        (bytes(8), "nothing but zeros"),
    ],
)
def test_wrong_content_is_described(beginning: bytes, kind: str):
    assert kind in (detect_wrong_content(beginning) or "")


@pytest.mark.parametrize("beginning", [b"", b"{}", bytes(7), b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
def test_other_content_is_not_judged(beginning: bytes):
    assert detect_wrong_content(beginning) is None


def test_empty_or_missing_file_is_refused(tmp_path: Path):
    path = tmp_path / "config.json"
    with pytest.raises(IntegrityError, match="No such file"):
        read_object(path)
    path.write_text(" \n")
    with pytest.raises(IntegrityError, match="empty"):
        read_object(path)


def test_fifo_is_refused_without_reading(tmp_path: Path):
    path = tmp_path / "config.json"
    os.mkfifo(path)
    with pytest.raises(IntegrityError, match="not a regular file"):
        read_object(path)
