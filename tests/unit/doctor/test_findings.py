"""Versions and severities of rules."""

import pytest

from deckard_deploy.doctor.findings import Severity, fail_if_needed, version


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("580.95.05", (580, 95, 5)),
        ("29.2.1-rc1", (29, 2, 1)),
        ("28.1.1+1", (28, 1, 1)),
        ("580.x.1", (580,)),
        ("v2.40", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_version_has_its_leading_numbers(text: str | None, numbers: tuple[int, ...]):
    assert version(text) == numbers


@pytest.mark.parametrize(
    ("needed", "severity"), [(True, Severity.FAIL), (False, Severity.WARN), (None, Severity.WARN)]
)
def test_unneeded_fault_is_a_warning(needed, severity: Severity):
    assert fail_if_needed(needed, "no GPU", "install it").severity is severity
