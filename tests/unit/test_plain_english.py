"""Plain English where a user reads: none of the phrases that reviewers did not understand.

The list is made of the rewrites of the usability report of 2026-11-30. A phrase that a reader stumbles over joins it,
with what to write instead.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
# Pattern -> what to write.
PHRASES = {
    r"whole road|the road\b": "workflow, configuration",
    r"\bmay ask\b": "can use the API",
    r"\bgo(es)? by (its|the) (new|old)\b": "uses",
    r"\bwhat is left alone\b|\bof what they leave\b": "remaining capacity",
    r"\bWho may\b": "Access control",
    r"\bWhat keeps\b|\bWhat it survives\b|\bis held to\b": "a heading that names the topic",
    r"\bheld against\b|\bholds? against\b": "compare with",
    r"\bno word\b(?! of)|\band no word\b": "no output",
    r"\bstands there twice\b": "duplicate",
    r"\bsends on to nowhere\b": "invalid redirect",
    r"\bcannot be had\b|\bare to be had\b": "is not reachable, is not available",
    r"\btaking the next choice\b": "falling back",
    r"\bthe middle (request|run)\b": "median",
    r"\blets nobody\b|\blet nobody\b": "requires a login",
    r"\bthan pay for\b": "below break-even",
    r"\bbring(s|ing)? .{0,40}\bback\b": "roll back, start again",
    r"\bcame back\b|\bcome back either\b": "started again",
    r"\bwould be reached by\b": "reachable",
    r"\bLook twice\b": "sample",
    r"\bwhat would change, and whether\b": "two sentences",
    r"\bGo on although\b|\bGo on printing\b": "continue, even if",
    r"\bSay (what|which|whether|that)\b": "Report, print",
    r"\bmay be asked\b|\bis asked for a\b": "receives a request",
    r"\bwhoever\b": "the user who",
    r"\bfor ever\b": "forever",
    r"\bstraight away\b": "immediately",
    r"\bof one's own\b": "own",
    r"\bsomebody else's\b": "another",
    r"pip install '?deckard-deploy": "the name is not ours on the index; docs/install.md",
}
# Places that quote, or whose words are somebody's own.
ALLOWED = {
    ("docs/install.md", r"pip install '?deckard-deploy"),  # says why not, and from a file or a git address
}


def pages() -> Iterator[tuple[str, str]]:
    """Yield the pages for users; docs/cli.md is the text of `--help`."""
    for path in [REPO / "README.md", REPO / "SECURITY.md", *sorted((REPO / "docs").glob("*.md"))]:
        if path.name not in ("architecture.md", "api.md"):
            yield str(path.relative_to(REPO)), path.read_text(encoding="utf-8")


def messages() -> Iterator[tuple[str, str]]:
    """Yield the texts of the package that are no docstrings."""
    for path in sorted((REPO / "deckard_deploy").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield f"{path.relative_to(REPO)}:{node.lineno}", node.value


def found_in(place: str, text: str) -> list[str]:
    found = []
    for pattern, better in PHRASES.items():
        if (place, pattern) in ALLOWED:
            continue
        for match in re.finditer(pattern, " ".join(text.split())):
            found.append(f"{place}: {match[0]!r}: {better}")
    return found


@pytest.mark.parametrize(("place", "text"), list(pages()), ids=lambda value: value[:40])
def test_page_has_no_phrase_of_the_list(place: str, text: str) -> None:
    assert found_in(place, text) == []


def test_messages_have_no_phrase_of_the_list() -> None:
    assert [line for place, text in messages() for line in found_in(place, text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "any program of this machine may ask the engine",
        "uv ended with code 2 and no word",
        "Say what runs",
        "release a failed: bringing b back",
        "try: pip install 'deckard-deploy[cpu]'",
    ],
)
def test_a_phrase_of_the_list_is_seen(text: str) -> None:
    assert len(found_in("a page", text)) == 1
