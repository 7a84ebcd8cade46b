"""The marks `# guard: F22` in the package, and how a marked guard is taken away from a copy of the package.

A mark stands at the end of the guarded line, or alone on the line above it. What begins on that line is the guard:

    a statement           becomes `pass`
    an `if`, a `while`    its condition becomes False
    a `with`              its context manager becomes one that does nothing
    an `except`           catches nothing
    a keyword argument, an item of a collection   is left out

Where that is not the fault, the catalogue names an expression that replaces the guard's own: the condition of an `if`,
the type of an `except`, the value of an assignment, a `return`, a call or a keyword argument.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MARK = re.compile(r"# guard: (F\d+[a-z]?)\b")
NO_CONTEXT = '__import__("contextlib").nullcontext()'
Span = tuple[ast.expr | ast.stmt | ast.keyword, ast.expr | ast.stmt | ast.keyword]


def marks(package: Path) -> Iterator[tuple[str, Path]]:
    """Yield every mark in the package, and the file it is in."""
    for path in sorted(package.rglob("*.py")):
        for mark in MARK.findall(path.read_text(encoding="utf-8")):
            yield mark, path


def remove_guard(package: Path, mark: str, instead: str | None = None) -> None:
    """Take the guard with this mark away from a copy of the package.

    Raises AssertionError unless the mark is there exactly once, in front of something that can be taken away.
    """
    found = [path for each, path in marks(package) if each == mark]
    assert len(found) == 1, f"the mark `# guard: {mark}` is there {len(found)} times, and not once"
    source = found[0].read_text(encoding="utf-8")
    changed = without_guard(source, mark, instead)
    assert changed != source, f"{mark}: nothing is taken away"
    found[0].write_text(changed, encoding="utf-8")


def without_guard(source: str, mark: str, instead: str | None = None) -> str:
    """Return the source without the guard that has this mark. Raises AssertionError when it cannot be taken away."""
    spans = replacements(ast.parse(source), guarded_line(source, mark), instead)
    assert spans, f"{mark}: nothing that can be taken away begins on the marked line"
    lines = source.encode().splitlines(keepends=True)
    for (first, last), text in reversed(spans):
        start = sum(map(len, lines[: first.lineno - 1])) + first.col_offset
        assert last.end_lineno is not None
        assert last.end_col_offset is not None
        end = sum(map(len, lines[: last.end_lineno - 1])) + last.end_col_offset
        whole = b"".join(lines)
        lines = (whole[:start] + text.encode() + whole[end:]).splitlines(keepends=True)
    changed = b"".join(lines).decode()
    compile(changed, mark, "exec")
    return changed


def guarded_line(source: str, mark: str) -> int:
    """Return the number of the line that the mark is for, from 1."""
    for number, line in enumerate(source.splitlines(), start=1):
        found = MARK.search(line)
        if found and found[1] == mark:
            return number + 1 if line.lstrip().startswith("#") else number
    raise AssertionError(f"there is no mark `# guard: {mark}`")


def replacements(tree: ast.Module, line: int, instead: str | None) -> list[tuple[Span, str]]:
    """Return the parts of the source to replace, in their order, each with its new text.

    The outermost statement, `except` or keyword argument that begins on the line counts; else an item.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.excepthandler | ast.keyword) and node.lineno == line:
            return without(node, instead)
    return without_item(tree, line, instead)


def without(node: ast.stmt | ast.excepthandler | ast.keyword, instead: str | None) -> list[tuple[Span, str]]:
    """Return what to replace in a statement, an `except` or a keyword argument."""
    parts: list[ast.expr | ast.stmt | ast.keyword] = []
    default = ""
    match node:
        case ast.If() | ast.While():
            parts, default = [node.test], "False"
        case ast.With():
            parts, default = [item.context_expr for item in node.items], NO_CONTEXT
        case ast.ExceptHandler(type=ast.expr() as caught):
            parts, default = [caught], "()"
        case _ if instead:
            value = getattr(node, "value", None)
            assert isinstance(value, ast.expr), f"line {node.lineno} has no expression to replace"
            parts = [value]
        case ast.keyword():
            parts, default = [node], "**{}"
        case ast.stmt():
            parts, default = [node], "pass"
        case _:
            pass
    return [((part, part), instead or default) for part in parts]


def without_item(tree: ast.Module, line: int, instead: str | None) -> list[tuple[Span, str]]:
    """Return what to replace where an item of a collection, or a positional argument, begins on the line."""
    for node in ast.walk(tree):
        match node:
            case ast.Dict():
                for key, value in zip(node.keys, node.values, strict=True):
                    if key is not None and key.lineno == line:
                        return [((value, value), instead) if instead else ((key, value), "**{}")]
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items) | ast.Call(args=items):
                for item in items:
                    if item.lineno == line > node.lineno:
                        return [((item, item), instead or "*()")]
            case _:
                pass
    return []
