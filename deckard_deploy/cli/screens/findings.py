"""Findings of `doctor` and profiles that fit, as text of at most 80 columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from deckard_deploy.cli.output import styled
from deckard_deploy.cli.program import typed
from deckard_deploy.cli.screens.layout import labelled

if TYPE_CHECKING:
    from deckard_deploy.doctor.findings import Finding
    from deckard_deploy.doctor.fitting import Fit

_COLOURS = {"fail": "red", "warn": "yellow", "info": "cyan", "ok": "green"}


def print_findings(findings: "Sequence[Finding]") -> None:
    """Print each finding with its reason and its fix, and their number by severity."""
    width = max((len(finding.rule) for finding in findings), default=0)
    for finding in findings:
        severity = finding.severity.value
        first, *rest = labelled(f"{severity:4}  {finding.rule:{width}}  ", finding.what)
        click.echo(styled(first[:4], _COLOURS[severity]) + first[4:])
        for line in rest:
            click.echo(line)
        if severity != "ok":
            _print_part("why", f"{finding.why} ({finding.source})")
        if finding.fix:
            _print_part("fix", typed(finding.fix))
    counts = []
    for name in _COLOURS:
        count = sum(finding.severity == name for finding in findings)
        if count:
            counts.append(f"{count} {name}")
    click.echo("\n" + ", ".join(counts))


def _print_part(name: str, text: str) -> None:
    for line in labelled(f"      {name}  ", text):
        click.echo(line)


def fit_lines(fits: "Sequence[Fit]") -> list[str]:
    """Return each profile with its verdict, the reason, and the changes that it needs first."""
    names = max(len(fit.profile) for fit in fits)
    verdicts = max(len(fit.verdict) for fit in fits)
    lines = []
    for fit in fits:
        label = f"{fit.profile:{names}}  {fit.verdict:{verdicts}}  "
        lines += labelled(label, fit.why)
        for change in fit.changes:
            lines += labelled(" " * len(label), f"first: {typed(change)}")
    return lines
