"""Text wrapped to the width of the screen."""

from deckard_deploy.system.text import printable
from deckard_deploy.system.text import wrapped as text_lines

WIDTH = 80
INDENT = 13  # the column at which values begin, behind the label


def wrapped(text: str, *, indent: int = INDENT) -> list[str]:
    """Return the text in lines of at most 80 columns; all but the first are indented."""
    return text_lines(text, WIDTH, " " * indent)


def labelled(label: str, text: str) -> list[str]:
    """Return the text behind a label, in lines of at most 80 columns.

    The text may come from another machine: its control characters are replaced.
    """
    lines = text_lines(printable(text), WIDTH - len(label))
    first, *rest = lines or [""]
    margin = " " * len(label)
    return [label + first] + [margin + line for line in rest]
