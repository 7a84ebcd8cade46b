"""The known word that a mistyped one is near to."""

import difflib
import re
from collections.abc import Iterable

_VERSION = re.compile(r"\d+\.\d+")
MAX_SUGGESTIONS = 3


def closest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'X'?`, or "" when no known word is near.

    Words that begin with `word` come first, all of them. Another version is not near: it is another release.
    """
    words = sorted(known)
    near = [each for each in words if word and each.startswith(word)]
    if not 0 < len(near) <= MAX_SUGGESTIONS:
        near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
        near = [each for each in near if _is_same_but_for_a_slip(word, each)]
    if not near:
        return ""
    return f"; did you mean {' or '.join(map(repr, near))}?"


def _is_same_but_for_a_slip(word: str, known: str) -> bool:
    """Return True for the same first letter and the same version. `gpu` is not `cpu`."""
    return word[0].lower() == known[0].lower() and _VERSION.findall(word) == _VERSION.findall(known)
