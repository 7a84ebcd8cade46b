"""Text in lines of at most 80 columns."""

from deckard_deploy.cli.screens.layout import INDENT, WIDTH, labelled, wrapped


def test_wrapped_text_is_indented() -> None:
    first, *rest = wrapped("word " * 40)
    assert len(first) <= WIDTH
    assert rest
    assert all(line.startswith(" " * INDENT + "word") and len(line) <= WIDTH for line in rest)


def test_label_stands_before_first_line() -> None:
    first, second = labelled("name  ", "word " * 20)
    assert first.startswith("name  word")
    assert second.startswith("      word")
    assert labelled("name  ", "") == ["name  "]


def test_control_characters_are_replaced() -> None:
    assert labelled("x ", "a\x1b[2Jb") == ["x a [2Jb"]
