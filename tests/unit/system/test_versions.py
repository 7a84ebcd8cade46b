"""Versions as numbers."""

import pytest

from deckard_deploy.system.versions import version_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("580.95.05", (580, 95, 5)),
        ("20.10.24+dfsg1", (20, 10, 24)),
        ("29.2.1-rc1", (29, 2, 1)),
        ("28.1.1+1", (28, 1, 1)),
        ("2.26.1-4", (2, 26, 1)),
        ("580.x.1", (580,)),
        ("v2.40", ()),
        ("dev", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_version_has_its_leading_numbers(text: str | None, numbers: tuple[int, ...]):
    assert version_numbers(text) == numbers
