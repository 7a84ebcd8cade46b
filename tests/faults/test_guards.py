"""Marked guards are found and removed."""

from pathlib import Path

import pytest

from tests.faults.guards import NO_CONTEXT, remove_guard, without_guard


@pytest.mark.parametrize(
    ("guarded", "left"),
    [
        ("if a == 1:  # guard: F1\n    b()\n", "if False:  # guard: F1\n    b()\n"),
        ("# guard: F1\nif a and (\n    b\n):\n    c()\n", "# guard: F1\nif False:\n    c()\n"),
        (
            "if a:\n    b()\nelif c:  # guard: F1\n    d()\n",
            "if a:\n    b()\nelif False:  # guard: F1\n    d()\n",
        ),
        ("while a:  # guard: F1\n    b()\n", "while False:  # guard: F1\n    b()\n"),
        ("with a(b) as c:  # guard: F1\n    d()\n", f"with {NO_CONTEXT} as c:  # guard: F1\n    d()\n"),
        ("with a, b:  # guard: F1\n    c()\n", f"with {NO_CONTEXT}, {NO_CONTEXT}:  # guard: F1\n    c()\n"),
        (
            "try:\n    a()\nexcept (B, C) as d:  # guard: F1\n    e(d)\n",
            "try:\n    a()\nexcept () as d:  # guard: F1\n    e(d)\n",
        ),
        ("a.b(c)  # guard: F1\nd()\n", "pass  # guard: F1\nd()\n"),
        ("for a in b:  # guard: F1\n    c()\nd()\n", "pass\nd()\n"),
        ("raise A(  # guard: F1\n    'é'\n) from b\n", "pass\n"),
        ("a(\n    b,\n    c=1,  # guard: F1\n)\n", "a(\n    b,\n    **{},  # guard: F1\n)\n"),
        ("a = {\n    B: 1,  # guard: F1\n    C: 2,\n}\n", "a = {\n    **{},  # guard: F1\n    C: 2,\n}\n"),
        ("a = (\n    (b, 'é'),  # guard: F1\n)\n", "a = (\n    *(),  # guard: F1\n)\n"),
        ("é = 'é'\nif é: a()  # guard: F1\n", "é = 'é'\nif False: a()  # guard: F1\n"),
    ],
)
def test_guard_is_taken_away(guarded: str, left: str):
    assert without_guard(guarded, "F1") == left


@pytest.mark.parametrize(
    ("guarded", "left"),
    [
        ("if a:  # guard: F1\n    b()\n", "if X:  # guard: F1\n    b()\n"),
        (
            "try:\n    a()\nexcept B as c:  # guard: F1\n    c()\n",
            "try:\n    a()\nexcept X as c:  # guard: F1\n    c()\n",
        ),
        ("a = b  # guard: F1\n", "a = X  # guard: F1\n"),
        ("a: int = b  # guard: F1\n", "a: int = X  # guard: F1\n"),
        ("def a():\n    return b  # guard: F1\n", "def a():\n    return X  # guard: F1\n"),
        ("a.b(c)  # guard: F1\n", "X  # guard: F1\n"),
        ("a(\n    b=c,  # guard: F1\n)\n", "a(\n    b=X,  # guard: F1\n)\n"),
        ("a = {\n    b: c,  # guard: F1\n}\n", "a = {\n    b: X,  # guard: F1\n}\n"),
    ],
)
def test_expression_stands_in_for_guard(guarded: str, left: str):
    assert without_guard(guarded, "F1", "X") == left


def test_mark_is_found_in_any_file(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.py").write_text("a()  # guard: F11\nb()  # guard: F1a\n")
    (tmp_path / "deep" / "one.py").write_text("c()  # guard: F1\n")
    remove_guard(tmp_path, "F1")
    assert (tmp_path / "deep" / "one.py").read_text() == "pass  # guard: F1\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a()\n", "there 0 times"),
        ("a()  # guard: F1\nb()  # guard: F1\n", "there 2 times"),
        ("a(\n    b\n)  # guard: F1\n", "nothing that can be taken away"),
        ("pass  # guard: F1\n", "nothing is taken away"),
    ],
)
def test_wrong_mark_is_refused(source: str, said: str, tmp_path: Path):
    (tmp_path / "one.py").write_text(source)
    with pytest.raises(AssertionError, match=said):
        remove_guard(tmp_path, "F1")


def test_statement_without_expression_needs_default():
    with pytest.raises(AssertionError, match="no expression"):
        without_guard("for a in b:  # guard: F1\n    c()\n", "F1", "X")
