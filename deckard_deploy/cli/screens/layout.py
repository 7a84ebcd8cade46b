"""Text wrapped to the width of the screen."""

import textwrap

from deckard_deploy.system.text import printable

WIDTH = 80
INDENT = 13  # the column at which values begin, behind the label


def wrapped(text: str, *, indent: int = INDENT) -> list[str]:
    """Return the text in lines of at most 80 columns; all but the first are indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent)


def labelled(label: str, text: str) -> list[str]:
    """Return the text behind a label, in lines of at most 80 columns.

    The text may come from another machine: its control characters are replaced.
    """
    lines = textwrap.wrap(printable(text), WIDTH - len(label), break_long_words=False, break_on_hyphens=False)
    first, *rest = lines or [""]
    margin = " " * len(label)
    return [label + first] + [margin + line for line in rest]
