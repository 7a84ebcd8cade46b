"""Versions as numbers that can be compared."""

import re


def version_numbers(text: str | None) -> tuple[int, ...]:
    """Return the numbers of a version: `580.95.05` -> (580, 95, 5); empty when the text is not a version."""
    numbers = []
    for part in (text or "").split("."):
        digits = re.match("[0-9]*", part)
        if digits is None or not digits[0]:
            break
        numbers.append(int(digits[0]))
    return tuple(numbers)
