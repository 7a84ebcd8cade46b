"""The width of text on the screen."""

import textwrap

from deckard_deploy.system.text import printable

WIDTH = 80
INDENT = 13  # the column at which values begin, behind the label


def wrapped(text: str, *, indent: int = INDENT) -> list[str]:
    """Wrap text to 80 columns; every line but the first is indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent)


def labelled(label: str, text: str) -> list[str]:
    """Wrap text to 80 columns behind a label. Text of other machines cannot reach the terminal as a command."""
    lines = textwrap.wrap(printable(text), WIDTH - len(label), break_long_words=False, break_on_hyphens=False)
    first, *rest = lines or [""]
    return [label + first, *(" " * len(label) + line for line in rest)]
