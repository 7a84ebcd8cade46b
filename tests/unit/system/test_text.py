import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deckard_deploy.system.text import (
    MAX_LINE,
    LineSplitter,
    clean,
    clean_lines,
    last_line,
    one_line,
    printable,
    shorten,
    wrapped,
)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\b", "ab"),
        ("a\x1b]0;without end", "a"),
        ("\x1bPdcs\x1b\\a", "a"),
        ("10%\r50%\r100%", "100%"),
        ("windows\r", "windows"),
        ("tab\tstays", "tab\tstays"),
        ("\x00\x07\x08\x9b31m\x7f", "31m"),
        ("\x1bcreset", "reset"),
        ("ü 漢 🙂", "ü 漢 🙂"),
    ],
)
def test_clean_removes_terminal_sequences(raw, shown):
    assert clean(raw) == shown


@given(st.lists(st.text("ab-", min_size=1, max_size=30)), st.integers(1, 40))
def test_wrapped_text_has_all_words_whole(words, width):
    lines = wrapped(" ".join(words), width)
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) <= width for line in lines if " " in line)


@given(st.text())
def test_clean_removes_controls_and_is_idempotent(text):
    once = clean(text)
    assert not any((ord(letter) < 32 and letter != "\t") or 0x7F <= ord(letter) < 0xA0 for letter in once)
    assert clean(once) == once


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_splitter_is_independent_of_chunk_borders(data, cuts):
    whole = LineSplitter().feed(data)
    splitter, lines = LineSplitter(), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        lines += splitter.feed(data[start:end])
    assert lines == whole


def test_splitter_cuts_line_without_end():
    splitter, lines = LineSplitter(), []
    for _ in range(200):
        lines += splitter.feed(b"x" * 10_000)
    lines += splitter.feed(b"\nnext\n")
    assert [len(line) for line in lines] == [MAX_LINE + 1, 4]
    assert lines[-1] == "next"


@pytest.mark.parametrize(
    ("data", "lines"),
    [(b"a\nb\n", ["a", "b"]), (b"a\nb", ["a", "b"]), (b"", [""]), (b"\xff\r\n0%\r9%\n", ["\ufffd", "9%"])],
)
def test_clean_lines_splits_whole_log(data, lines):
    assert clean_lines(data) == lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ü 漢 🙂", "ü 漢 🙂"),
        ("a\tb\n", "a b "),
        ("\x1b[31mred\x07", " [31mred "),
        ("\u202eabc\ud800", " abc "),
    ],
)
def test_printable_replaces_by_spaces(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_printable_keeps_length(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)


@pytest.mark.parametrize(("text", "shown"), [("", ""), ("abc", "abc"), ("abcd", "abcd"), ("abcde", "abc…")])
def test_shorten_cuts_at_limit(text, shown):
    assert shorten(text, 4) == shown


@pytest.mark.parametrize(("text", "line"), [("", ""), ("\n \n", ""), ("a\n b \n\n", "b"), ("a", "a")])
def test_last_line_skips_blank_lines(text, line):
    assert last_line(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n \n", ""),
        ("a\n b \n\n", "b"),
        ("\x1b[31mred\x07", " [31mred "),
        ("x" * 500, "x" * 159 + "…"),
    ],
)
def test_one_line_is_printable_and_short(text, line):
    assert one_line(text) == line
