"""Patches and their verdicts as text and as JSON."""

from collections.abc import Mapping, Sequence

import click

from deckard_deploy.cli.screens.layout import labelled
from deckard_deploy.patching.build import PatchVerdict
from deckard_deploy.patching.manifest import Patch, PatchSet

Row = tuple[str, ...]


def print_patch(patch: Patch, *, needed: bool | None, profile: str | None) -> None:
    """Print a patch with its reason. needed: by the plan of the profile; None when no profile was named."""
    verdict = ""
    if needed is not None:
        word = "needed" if needed else "not needed"
        verdict = f"{word} by {profile}; "
    click.echo(f"{patch.name}  {verdict}needed with: {_conditions(patch)}")
    click.echo(f"  {patch.target}")
    texts = [patch.reason]
    if patch.unpatched:
        texts.append(f"Without it: {patch.unpatched}")
    for text in texts:
        for line in labelled("    ", text):
            click.echo(line)


def _conditions(patch: Patch) -> str:
    conditions = []
    if patch.needed_when.always:
        conditions.append("always")
    if patch.needed_when.drafter:
        conditions.append("drafter")
    conditions += patch.needed_when.quantization
    return ",".join(conditions)


def verdict_json(verdict: PatchVerdict) -> dict[str, object]:
    """Return a verdict as plain data."""
    return {
        "name": verdict.name,
        "target": verdict.target,
        "verdict": verdict.verdict.name.lower(),
        "fits": verdict.fits,
        "detail": verdict.detail,
        "found": verdict.found,
    }


def verdict_rows(verdicts: Sequence[PatchVerdict]) -> list[Row]:
    """Return the name, the verdict and the file that was found of each patch, as a table."""
    return [(verdict.name, _verdict_text(verdict), verdict.found) for verdict in verdicts]


def matrix_rows(patch_set: PatchSet, found: Mapping[str, Sequence[PatchVerdict]]) -> list[Row]:
    """Return the verdicts by release as a table with a head."""
    rows: list[Row] = [("vLLM", *(patch.name for patch in patch_set.patches))]
    for release, verdicts in found.items():
        rows.append((release, *map(_verdict_text, verdicts)))
    return rows


def print_markdown(rows: Sequence[Row]) -> None:
    """Print a table with a head as Markdown."""
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        click.echo(f"| {' | '.join(row)} |")


def _verdict_text(verdict: PatchVerdict) -> str:
    text = verdict.verdict.value
    if verdict.detail:
        text += f": {verdict.detail}"
    return text
