"""Severities of rules."""

import pytest

from deckard_deploy.doctor.findings import Severity, fail_if_needed


@pytest.mark.parametrize(
    ("needed", "severity"), [(True, Severity.FAIL), (False, Severity.WARN), (None, Severity.WARN)]
)
def test_unneeded_fault_is_a_warning(needed, severity: Severity):
    assert fail_if_needed(needed, "no GPU", "install it").severity is severity
